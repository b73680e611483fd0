"""A process that is killed while it moves an artifact. Apart from the tests, so that it imports no more."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from outcrop_compile.artifact.directory import Directory
from outcrop_compile.artifact.files import Advance
from outcrop_compile.artifact.store import Store


class Dying(Directory):
    """Kills its own process, as the kernel would, once it has moved so many bytes."""

    def __init__(self, root: Path, after: int) -> None:
        super().__init__(root)
        self.left = after

    def _moved(self, count: int) -> None:
        self.left -= count
        if self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def read(self, name: str, start: int = 0) -> Iterator[bytes]:
        for piece in super().read(name, start):
            for place in range(0, len(piece), 100):
                yield piece[place : place + 100]
                self._moved(100)

    def write(self, name: str, file: Path, advance: Advance) -> None:
        def counted(done: int) -> None:
            self._moved(done)
            advance(done)

        super().write(name, file, counted)


def run_dying(action: str, root: Path, argument: Any, after: int) -> None:
    store = Store(Dying(root, after), str(root))
    if action == "push":
        store.push(argument)
    else:
        store.pull(*argument)


def killed(*arguments: Any) -> bool:
    """Whether that process was killed; else it ended well."""
    process = multiprocessing.get_context("spawn").Process(target=run_dying, args=arguments)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0
