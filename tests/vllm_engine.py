"""The real vLLM for tests: on the demo weights, in the environment that `make vllm` makes.

`pytest tests/conformance --engine vllm` (or vllm-server) has it for the engine of that folder's servers;
tests/clients takes the option too.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from engine_kinds import OWN, SERVER
from serving import eventually

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
CHECKPOINT = ROOT / ".demo" / "vllm" / "smollm2-135m"
"""The demo weights as a Hugging Face folder, which is what vLLM reads."""

VARIABLES = {
    # Tests run side by side: threads that wait for one another, each bound to a core, would stand still.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
START = 900.0
"""Seconds within which it starts on a busy machine."""

KV = 512 << 20
BLOCK = 32
"""Tokens of a KV block, so that short prompts are found in the prefix cache."""


def checkpoint() -> Path:
    """Makes it, if it is not there yet."""
    from benchmarks.peers.weights import write_demo

    if not CHECKPOINT.exists():
        unfinished = CHECKPOINT.with_name(f"{CHECKPOINT.name}-{os.getpid()}")
        write_demo(unfinished)
        unfinished.rename(CHECKPOINT)
    return CHECKPOINT


class VllmServer:
    """`vllm serve`, which can be killed and started again on the same port. Its output goes to a file."""

    def __init__(self, folder: Path, length: int = 512, *more: str) -> None:
        """length: tokens of the context. more: options."""
        self._length, self._more = length, more
        self._log = folder / "vllm.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        command = [
            *(str(PYTHON.with_name("vllm")), "serve", str(checkpoint()), "--port", str(self.port)),
            *("--host", "127.0.0.1", "--dtype", "float32", "--max-model-len", str(self._length)),
            *("--enforce-eager", "--block-size", str(BLOCK), "--kv-cache-memory-bytes", str(KV)),
            *("--scheduling-policy", "priority"),
            *("--structured-outputs-config.backend", "guidance", "--enable-prompt-tokens-details"),
            *self._more,
        ]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, start_new_session=True, env=os.environ | VARIABLES
            )
        if wait:
            eventually(self._answers, "a vLLM server", START)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            return httpx.get(f"{self.url}/health").status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def vllm_server(folder: Path, length: int = 512, *more: str) -> Iterator[VllmServer]:
    server = VllmServer(folder, length, *more)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def model_table(kind: str, folder: Path, length: int = 512, *more: str) -> Iterator[dict[str, Any]]:
    """The settings of a model that vLLM serves, in float32 and with `length` tokens of context; what else
    they need is there as long as this. more: options of the vLLM server, for the kind that has one."""
    table: dict[str, Any] = {"path": str(checkpoint()), "backend": "vllm"}
    if kind == SERVER:
        with vllm_server(folder, length, *more) as server:
            yield table | {"url": server.url}
        return
    with pytest.MonkeyPatch.context() as patch:  # the engine process inherits it
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        yield table | {
            "python": str(PYTHON), "dtype": "float32", "max_model_len": length, "kv_memory": KV,
            "engine_args": {"enforce_eager": True, "block_size": BLOCK},
        }  # fmt: skip


@contextmanager
def serving_options(kind: str, folder: Path, length: int = 512) -> Iterator[tuple[str, ...]]:
    """Options of `outcrop serve` for one of the ENGINES, in float32 and with `length` tokens of context."""
    if kind == OWN:
        yield ("--dtype", "float32", "--max-model-len", str(length))
        return
    with model_table(kind, folder, length) as table:
        table["model"] = table.pop("path")
        options = [(f"--{name.replace('_', '-')}", value) for name, value in table.items()]
        yield tuple(
            word if isinstance(word, str) else json.dumps(word) for option in options for word in option
        )
