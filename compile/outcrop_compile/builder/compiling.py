"""Many graphs compiled side by side, within the machine's memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from outcrop_compile.builder.compiler import Compiler, Traced
from outcrop_compile.builder.failures import KILLED, CompilationFailed, failure_of
from outcrop_compile.graph import Graph


@dataclass(frozen=True, slots=True)
class Job:
    """A graph to compile. key: of all that its NEFF depends on."""

    graph: Graph
    traced: Traced
    flags: tuple[str, ...]
    key: str


@dataclass(frozen=True, slots=True)
class Pool:
    """work: the folder where NEFFs are kept by their keys, so that none is compiled twice. workers:
    compilations at the same time. command: of the build, for errors."""

    compiler: Compiler
    work: Path
    workers: int
    command: str

    def neff(self, key: str) -> Path:
        return self.work / f"{key}.neff"

    def compile(self, jobs: Sequence[Job], done: Callable[[Job], None]) -> None:
        """Compile what has not been. done: called for each, in this thread.

        A compilation that the kernel ended for want of memory is tried once more when no other runs. Raises
        CompilationFailed for the first that fails otherwise, once those that run have ended: what they make
        is kept.
        """
        killed: list[Job] = []
        with ThreadPoolExecutor(self.workers, thread_name_prefix="compile") as pool:
            tasks = {pool.submit(self._one, job): job for job in jobs}
            try:
                for task in as_completed(tasks):
                    try:
                        task.result()
                    except CompilationFailed as failed:
                        if failed.code != KILLED or self.workers == 1:
                            raise
                        killed.append(tasks[task])
                    else:
                        done(tasks[task])
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        for job in killed:
            self._one(job)
            done(job)

    def _one(self, job: Job) -> None:
        neff = self.neff(job.key)
        if neff.exists():
            return
        folder = self.work / job.traced.tag
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            made = self.compiler.compile(job.traced, job.flags, folder)
        except Exception as error:
            raise failure_of(error, job.traced.tag, folder, self.command) from error
        # Only whole ones have a key for a name.
        os.replace(made, neff)
        shutil.rmtree(folder)
