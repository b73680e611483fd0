"""Python that NKI's compiler does not read is refused, before a kernel runs, at its line."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from outcrop_kernels.nki.simulator import Refused, simulate


def _kernel(folder: Path, body: str) -> Any:
    """A function of x whose second line is `body`, in a module of its own: its source is read."""
    path = folder / "written.py"
    path.write_text(f"def written(x):\n    {body}\n    return x\n")
    spec = importlib.util.spec_from_file_location("written", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.written


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("try: x.shape\n    finally: pass", "uses try"),
        ("raise ValueError", "uses raise: assert instead"),
        ("with x: pass", "uses with"),
        ("y = lambda: 1", "uses lambda: define a function"),
        ("y = [one for one in (1, 2)]", "uses a list comprehension: append in a loop"),
        ("y = {one for one in (1, 2)}", "uses a set comprehension"),
        ("y = {one: 1 for one in (1, 2)}", "uses a dict comprehension"),
        ("y = sum(one for one in (1, 2))", "uses a generator"),
        ("y = max(*(1, 2))", "uses an argument or tuple expansion"),
        ("yield x", "uses yield"),
        ("yield from x", "uses yield"),
        ("global y", "uses global"),
        ("y = (z := 1)", "uses an assignment in an expression"),
        ("match x.shape:\n        case _: pass", "uses match: use if"),
        ("y = 1\n    del y", "uses del"),
        ("import math", "uses an import: import at the top"),
        ("from math import pi", "uses an import: import at the top"),
        ("y = x is None", "uses `is`: write == or !="),
        ("def inner(*more): pass", r"inner takes \*args or \*\*kwargs"),
        ("def inner(*, more): pass", "inner has keyword-only parameters"),
        ("async def inner(): await x", "uses async"),
    ],
)
def test_python_that_is_not_compiled_is_refused(body: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=said) as refusal:
        simulate(_kernel(tmp_path, body), torch.zeros(2, 2))
    assert refusal.value.rule.name == "language"
    assert Path(refusal.value.place.file).name == "written.py"
    assert refusal.value.place.line in (2, 3)
