"""Outcrop itself, from this checkout."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.peers.peer import Peer


class Outcrop(Peer):
    name = "outcrop"
    package = "outcrop"
    precisions: ClassVar = {"bf16": "bfloat16", "int8": "int8"}
    route = "/openai/v1/completions"
    health = "/health/ready"

    def command(self, port: int) -> list[str]:
        dtype = {"bf16": "bfloat16", "int8": "int8"}[self.precision]
        return [
            *(str(self.python.parent / "outcrop"), "serve", "--model", str(self.model.directory)),
            *("--id", self.served_name, "--dtype", dtype, "--kv-memory", "2G", "--port", str(port)),
        ]
