"""The real `outcrop serve`, in a process of its own as an operator starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import httpx
import psutil
from botocore.config import Config
from demo import PATH

COMMAND = (sys.executable, "-c", "from outcrop.cli.main import main; main()")
PATIENCE = 120.0
ANY_MODEL = "meta.llama3-1-8b-instruct-v1:0"


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without settings of a server, and with some of them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OUTCROP_")}
    return kept | variables


def eventually(
    condition: Callable[[], bool], what: str = "the condition", patience: float = PATIENCE
) -> None:
    """Wait for something that other processes bring about; fails when they never do."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came about"
        time.sleep(0.01)


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended (nobody may be there to collect the remains of an orphan)."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Served:
    """A running server. url: where it answers, once it does. log: the file that its output goes to."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.url = ""
        self._http = httpx.Client(timeout=PATIENCE)
        self._engines: set[psutil.Process] = set()

    def wait_until_ready(self, patience: float = PATIENCE) -> None:
        eventually(lambda: self._announced() or self.process.poll() is not None, "a ready server", patience)
        assert self.process.poll() is None, self.output
        assert self.is_ready()

    def _announced(self) -> bool:
        match = re.search(r"Outcrop is ready on (\S+)", self.output)
        self.url = match[1] if match else ""
        return match is not None

    @property
    def output(self) -> str:
        """Everything that the server has written so far."""
        return self.log.read_text()

    def engines(self) -> list[psutil.Process]:
        """The engine processes of this moment."""
        try:
            found = psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []
        self._engines.update(found)
        return [each for each in found if not gone(each)]

    def signal_engine(self, number: signal.Signals) -> None:
        """To the only engine, which must be there."""
        (engine,) = self.engines()
        engine.send_signal(number)

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric, summed over the series that have these labels."""
        lines = re.findall(
            rf"^{re.escape(name)}({{.*}})? (\S+)$", self._http.get(f"{self.url}/metrics").text, re.M
        )
        assert lines, f"there is no metric {name}"
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(float(value) for series, value in lines if all(pair in series for pair in wanted))

    @property
    def restarts(self) -> float:
        return self.metric("outcrop_engine_restarts_total")

    def is_ready(self) -> bool:
        return self._http.get(f"{self.url}/health/ready").status_code == 200

    def is_idle(self) -> bool:
        """Nothing runs, waits or holds KV memory."""
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
        return not any(self.metric(name) for name in names)

    def client(self, service: str = "bedrock-runtime", **options: Any) -> Any:
        """An ordinary boto3 client; only its endpoint is not the cloud's."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
            config=Config(**({"retries": {"total_max_attempts": 1}, "read_timeout": PATIENCE} | options)),
        )

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit status. The engines must have ended with the server."""
        status = self.process.wait(timeout)
        eventually(lambda: all(map(gone, self._engines)), "the end of the engines")
        return status

    def end(self) -> None:
        """Leave no process behind, whatever has happened."""
        self._http.close()
        self.engines()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for engine in self._engines:
            if not gone(engine):
                engine.kill()


@contextmanager
def serving(
    folder: Path, *options: str, wait: bool = True, patience: float = PATIENCE, **variables: str
) -> Iterator[Served]:
    """`outcrop serve` with these options on a free port, on the demo checkpoint unless they say otherwise.
    Its output goes to a file in `folder`."""
    if not {"--model", "--config", "--artifact"} & set(options):
        options = ("--model", str(PATH), *options)
    if "--state" not in options:
        options = ("--state", str(folder / "state.db"), *options)
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--port", "0", *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(**variables),
        )
    served = Served(process, log)
    try:
        if wait:
            served.wait_until_ready(patience)
            served.engines()
        yield served
    finally:
        served.end()
