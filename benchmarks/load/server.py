"""A real `outcrop serve`, as a subprocess of a benchmark."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil

DEMO = Path(__file__).parents[2] / ".demo" / "SmolLM2-135M-Instruct.Q4_1.gguf"


@contextmanager
def served(*options: str) -> Iterator[tuple[str, psutil.Process, float]]:
    """Its URL, its process, and the seconds from launch to ready. It serves the demo model unless the options
    name a configuration."""
    model = () if "--config" in options else ("--model", DEMO)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    begun = time.perf_counter()
    process = subprocess.Popen(
        [Path(sys.executable).parent / "outcrop", "serve", *model, "--port", str(port), *options],
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _ready(url):
            if process.poll() is not None:
                raise RuntimeError(f"outcrop serve ended with status {process.returncode}")
            time.sleep(0.02)
        yield url, psutil.Process(process.pid), time.perf_counter() - begun
    finally:
        process.terminate()
        process.wait(timeout=60)


def _ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/health/ready") as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False
