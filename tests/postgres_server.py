"""PostgreSQL for tests: whichever is installed, started in a folder of its own, and gone when they end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

_PATIENCE = 60.0
_NOBODY = ("postgres", "nobody")
"""Who runs it where the tests are root's, whom it refuses."""


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`, if they are installed: on the path, or where Debian has them."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda folder: int(folder.parent.name), default=None)


class PostgresServer:
    """One server. It trusts whoever reaches its port."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._user = None
        if os.geteuid() == 0:
            known = {each.pw_name for each in pwd.getpwall()}
            self._user = next(name for name in _NOBODY if name in known)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count()
        if self._user is not None:
            shutil.chown(folder, self._user)
        self._run("initdb", "-D", "data", "-U", "outcrop", "-A", "trust", "-E", "UTF8", "-N").wait()

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [str(self._programs / program), *arguments],
                cwd=self._folder,
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def url(self, name: str = "postgres") -> str:
        """Of one of its databases, as a setting has it."""
        return f"postgresql://outcrop@127.0.0.1:{self._port}/{name}"

    def new_database(self) -> str:
        """The URL of an empty one."""
        name = f"state{next(self._names)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str, url: str | None = None) -> None:
        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def start(self) -> None:
        self._process = self._run(
            "postgres", "-D", "data", "-p", str(self._port), "-h", "127.0.0.1", "-k", "", "-F"
        )
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                psycopg.connect(self.url()).close()
            except psycopg.OperationalError:
                log = (self._folder / "log").read_text()
                assert self._process.poll() is None, log
                assert time.monotonic() < deadline, log
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """At once, breaking connections off. Idempotent."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_PATIENCE)
            self._process = None


@contextmanager
def postgres_server(programs: Path) -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = PostgresServer(programs, Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()
