"""The real vLLM for tests: on the demo weights, in the environment that `make vllm` makes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
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


def options(*more: str) -> tuple[str, ...]:
    """Of `outcrop serve`, for vLLM in its engine process."""
    return (
        *("--model", str(checkpoint()), "--backend", "vllm", "--python", str(PYTHON), "--kv-memory", str(KV)),
        *("--engine-args", f'{{"enforce_eager": true, "block_size": {BLOCK}}}', *more),
    )


class VllmServer:
    """`vllm serve`, which can be killed and started again on the same port. Its output goes to a file."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "vllm.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        command = [
            *(str(PYTHON.with_name("vllm")), "serve", str(checkpoint()), "--port", str(self.port)),
            *("--host", "127.0.0.1", "--dtype", "float32", "--max-model-len", "512", "--enforce-eager"),
            *(
                "--block-size",
                str(BLOCK),
                "--kv-cache-memory-bytes",
                str(KV),
                "--scheduling-policy",
                "priority",
            ),
            *("--structured-outputs-config.backend", "guidance", "--enable-prompt-tokens-details"),
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
def remote(folder: Path) -> Iterator[tuple[str, ...]]:
    """Options of `outcrop serve`, for a vLLM server that runs as long as this."""
    with vllm_server(folder) as server:
        yield ("--model", str(checkpoint()), "--backend", "vllm", "--url", server.url)


@contextmanager
def vllm_server(folder: Path) -> Iterator[VllmServer]:
    server = VllmServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
