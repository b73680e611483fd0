"""A server for a run of tests: shared by the processes of the run, and gone when the last of them is.

Which processes use the server, and whether it lives, is kept in file locks (flock), which the kernel gives
back however a process ends. Nobody has to be told to stop the server and nobody can forget: when no lock
on `users` is left, it ends itself, also after a `kill -9` of all its users. In the folder of a run:

    users       every user holds it shared; the server waits for it, and then ends
    server      the server holds it as long as it lives
    starting    held by the user that starts the server, or looks whether there is one
    url         where the server answers, once it does
    server.log  what it says
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_READY = re.compile(r"Outcrop is ready on (\S+)")
_SHOWN_LINES = 40
_PERIOD = 0.02
_SHUTDOWN = 15.0
"""Seconds after which a server that was asked to end is ended."""


class LocalServerError(Exception):
    """The server did not start; the message has its log."""


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running server. log: the file it writes to."""

    url: str
    log: Path


@contextmanager
def local_server(folder: Path, options: Sequence[str], *, timeout: float = 120.0) -> Iterator[LocalServer]:
    """The one server of `folder`, which is started with these options of `outcrop serve` by whoever comes
    first. Raises LocalServerError when it is not ready within `timeout` seconds, which is then so for all
    others, too."""
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(folder)
    with run.lock("users") as users, run.lock("server") as server:
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            with run.lock("starting") as starting:
                fcntl.flock(starting, fcntl.LOCK_EX)
                url = run.join(server) or run.start(options, timeout)
            yield LocalServer(url, run.log)
        finally:
            fcntl.flock(users, fcntl.LOCK_UN)
            _wait_for_end(users, server)
            run.reap()


class _Run:
    """The files of one run, and the server process if this process has started it."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "server.log"
        self._folder = folder
        self._url = folder / "url"
        self._failure = folder / "failure"
        self._pid: int | None = None

    def lock(self, name: str) -> IO[bytes]:
        """An open file to lock; each opening is a holder of its own."""
        return (self._folder / name).open("ab")

    def join(self, server: IO[bytes]) -> str | None:
        """Where the server answers that somebody else has started; None if nobody has."""
        if self._failure.exists():
            raise LocalServerError(self._failure.read_text())
        return self._url.read_text() if self._url.exists() and not _try(server, fcntl.LOCK_SH) else None

    def start(self, options: Sequence[str], timeout: float) -> str:
        """Start the server and wait until it answers."""
        self._url.unlink(missing_ok=True)
        self._pid = _spawn(self._folder, self.log, ["serve", "--port", "0", *options])
        deadline = time.monotonic() + timeout
        while (match := _READY.search(self._output())) is None:
            if (status := self.reap()) is not None:
                self._fail(f"it ended with status {status}", options)
            if time.monotonic() > deadline:
                os.kill(self._pid, signal.SIGKILL)
                self._fail(f"it was not ready after {timeout:g} seconds", options)
            time.sleep(_PERIOD)
        self._url.write_text(match[1])
        return match[1]

    def reap(self) -> int | None:
        """The exit status of the server, if this process has started it and it has ended."""
        if self._pid is not None:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self._pid, os.WNOHANG)
                return os.waitstatus_to_exitcode(status) if pid else None
        return None

    def _output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _fail(self, reason: str, options: Sequence[str]) -> None:
        tail = "\n".join(self._output().splitlines()[-_SHOWN_LINES:]) or "(nothing)"
        message = (
            f"The Outcrop server did not start: {reason}.\n"
            f"Command: outcrop serve {' '.join(options)}\nLog ({self.log}):\n{tail}"
        )
        self._failure.write_text(message)
        raise LocalServerError(message)


def _spawn(folder: Path, log: Path, arguments: Sequence[str]) -> int:
    """A process that runs `main` below, in a session of its own: Ctrl-C is for those who run the tests,
    and they still need their server to end in order."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    return os.posix_spawn(
        sys.executable,
        # -P: nothing in the working directory may stand in for a module of the server
        [sys.executable, "-P", "-m", __name__, str(folder), *arguments],
        _environment(),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _environment() -> dict[str, str]:
    """This process's environment without settings of a server, which come from its options alone."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OUTCROP_")}


def _try(file: IO[bytes], kind: int) -> bool:
    """Whether the lock could be had; it is given back at once."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


def _wait_for_end(users: IO[bytes], server: IO[bytes]) -> None:
    """Return when the server has ended, or at once where others still use it."""
    while not _try(server, fcntl.LOCK_SH):
        if not _try(users, fcntl.LOCK_EX) and _try(users, fcntl.LOCK_SH):
            return
        time.sleep(_PERIOD)


# -- in the server's process -----------------------------------------------------------------------


def main() -> None:
    """`python -m outcrop.local_server FOLDER serve OPTIONS...`: the `outcrop` command, as long as the
    folder has users."""
    folder, *arguments = sys.argv[1:]
    with (Path(folder) / "server").open("ab") as alive, (Path(folder) / "users").open("ab") as users:
        fcntl.flock(alive, fcntl.LOCK_EX)
        threading.Thread(target=_end_without_users, args=(users,), daemon=True).start()
        from outcrop.cli.main import app

        app(arguments, prog_name="outcrop")


def _end_without_users(users: IO[bytes]) -> None:
    fcntl.flock(users, fcntl.LOCK_EX)  # until the process has ended: who comes now starts a new server
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SHUTDOWN)
    os._exit(1)


if __name__ == "__main__":
    main()
