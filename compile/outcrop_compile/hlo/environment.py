"""Where torch_xla is: in this environment, or in one of its own, since it wants its own version of torch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

import outcrop_compile
import outcrop_kernels
from outcrop_compile.hlo.worker import Lowered, Request

FOLDER = ".venv-xla"
HOW = "make xla (from a checkout), or: python3 -m venv .venv-xla && .venv-xla/bin/pip install 'outcrop[xla]'"


class LoweringFailed(RuntimeError):
    """No torch_xla, or the lowering ended with an error."""


def find_python(given: str | None = None) -> str:
    """An interpreter that has torch_xla: the one given, this one, or that of .venv-xla in this folder. Raises
    LoweringFailed, with the command that makes one."""
    if given is not None:
        if not Path(given).is_file():
            raise LoweringFailed(f"--python {given}: no such file")
        return given
    if importlib.util.find_spec("torch_xla") is not None:
        return sys.executable
    python = Path(FOLDER) / "bin" / "python"
    if python.is_file():
        return str(python.absolute())
    raise LoweringFailed(
        f"lowering needs torch 2.9.0 and torch_xla 2.9.0, which are neither here nor in ./{FOLDER}. To make "
        f"that: {HOW}. Another environment: --python PATH"
    )


def lower(request: Request, python: str) -> Iterator[Lowered]:
    """Lower graphs in a process of that interpreter, one result as each is done. Raises LoweringFailed with
    what the process said last."""
    roots = {
        str(Path(package.__file__ or "").parent.parent) for package in (outcrop_compile, outcrop_kernels)
    }
    path = os.pathsep.join([*sorted(roots), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            [python, "-m", "outcrop_compile.hlo.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=os.environ | {"PYTHONPATH": path, "PJRT_DEVICE": "CPU"},
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(msgspec.json.encode(request))
            process.stdin.close()
            for line in process.stdout:
                yield msgspec.json.decode(line, type=Lowered)
        except BaseException:
            process.kill()
            raise
        if process.wait():
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").strip().splitlines()
            last = lines[-1] if lines else f"exit status {process.returncode}"
            raise LoweringFailed(f"lowering in {python} failed: {last}")
