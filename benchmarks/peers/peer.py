"""One inference server among those that are compared: how it is installed, started and stopped.

To add a peer, write a subclass in a file of its own in `subjects/` and list it in `registry.py`.
This module imports nothing outside the standard library, so that a peer's own environment can import it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import ClassVar, Literal
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.peers.models import FOLDER, ROOT, Model

Precision = Literal["bf16", "int8"]

_ENVIRONMENTS = ROOT / ".venv-peers"
_START_SECONDS = 600  # vLLM compiles its kernels at the first start


class PeerError(RuntimeError):
    """A peer could not be installed, started or asked; the message says which and where its log is."""


class Peer(ABC):
    """A server of one model in one precision.

    Between `start` and `stop` it can be paused: it keeps its memory and takes no processor time.
    """

    name: ClassVar[str]
    requirements: ClassVar[Sequence[str]] = ()
    """What pip installs into the peer's environment; none: it runs in this one."""
    install_variables: ClassVar[Mapping[str, str]] = {}
    """What to set for pip."""
    package: ClassVar[str]
    """The distribution whose version stands for the peer's."""
    precisions: ClassVar[Mapping[Precision, str]]
    """What it is given in each precision it can run, in words for the report."""
    route: ClassVar[str] = "/v1/completions"
    health: ClassVar[str] = "/health"

    def __init__(self, model: Model, precision: Precision) -> None:
        self.model, self.precision = model, precision
        self.ready_after = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @abstractmethod
    def command(self, port: int) -> list[str]:
        """What starts the server on 127.0.0.1."""

    def environment(self) -> dict[str, str]:
        """Variables to set for it."""
        return {}

    def prepare(self) -> None:  # noqa: B027 most peers need nothing of their own
        """Make the files it needs beside the common ones, if they are not there yet."""

    def after_install(self) -> None:  # noqa: B027 nor is there anything to mend
        """Mend what pip leaves broken."""

    @property
    def served_name(self) -> str:
        """What calls are to give as `model`."""
        return self.model.name

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return self.folder / "bin" / "python" if self.requirements else Path(sys.executable)

    @property
    def folder(self) -> Path:
        return _ENVIRONMENTS / self.name

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}{self.route}"

    def install(self) -> None:
        """Into an environment of its own, unless just these requirements are there already."""
        mark = self.folder / ".installed"
        wanted = "\n".join(self.requirements)
        if not self.requirements or (mark.exists() and mark.read_text() == wanted):
            return
        print(f"installing {self.name}", file=sys.stderr)
        if not self.python.exists():
            subprocess.run([sys.executable, "-m", "venv", self.folder], check=True)
        self.pip("install", *self.requirements)
        self.after_install()
        mark.write_text(wanted)

    def pip(self, *arguments: str) -> None:
        command = [str(self.python), "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
        subprocess.run(command, check=True, env=os.environ | self.install_variables)

    def version(self) -> str:
        """The package's, as installed."""
        places = [str(each) for each in self.folder.glob("lib/python*/site-packages")] or sys.path
        return next(found.version for found in distributions(path=places, name=self.package))

    def describe(self) -> str:
        """The command line, without this machine's paths."""
        environment = [f"{name}={value}" for name, value in self.environment().items()]
        words = [*environment, *self.command(8000)]
        return shlex.join(words).replace(f"{ROOT}/", "")

    def start(self) -> None:
        """Returns when it answers. Raises PeerError."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        log = FOLDER / "logs" / f"{self.name}-{self.model.name}-{self.precision}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        begun = time.perf_counter()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                self.command(self._port),
                cwd=ROOT,
                env=os.environ | self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        while not self._answers():
            if self._process.poll() is not None or time.perf_counter() - begun > _START_SECONDS:
                self.stop()
                raise PeerError(f"{self.name} did not start; see {log}")
            time.sleep(0.05)
        self.ready_after = time.perf_counter() - begun

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it and all that it started; nothing if it does not run."""
        if self._process is None:
            return
        self.resume()
        family = _family(self._process.pid)
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=30)
        _kill(family, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            _kill(_family(self._process.pid), number)

    def _answers(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self._port}{self.health}", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


def _family(process: int) -> list[int]:
    """A process and all that descend from it; some servers put their workers into other groups."""
    found = [process]
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += _family(int(child))
    return found


def _kill(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
