"""What of Python a kernel may be written in: NKI compiles its source, the simulator merely runs it."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

from outcrop_kernels.nki.simulator.rules import Place, refuse

_NOT_READ: dict[type[ast.AST], str] = {
    ast.Try: "try",
    ast.Raise: "raise: assert instead",
    ast.With: "with",
    ast.Lambda: "lambda: define a function",
    ast.ListComp: "a list comprehension: append in a loop",
    ast.SetComp: "a set comprehension",
    ast.DictComp: "a dict comprehension",
    ast.GeneratorExp: "a generator",
    ast.Starred: "an argument or tuple expansion (*)",
    ast.Yield: "yield",
    ast.YieldFrom: "yield",
    ast.Await: "await",
    ast.AsyncFunctionDef: "async",
    ast.Global: "global",
    ast.Nonlocal: "nonlocal",
    ast.NamedExpr: "an assignment in an expression (:=)",
    ast.Match: "match: use if",
    ast.Delete: "del",
    ast.Import: "an import: import at the top of the module",
    ast.ImportFrom: "an import: import at the top of the module",
}
"""Not among the constructs of AWS's NKI language guide; the kernels of aws-neuron/nki-library (tag 2.28) do
without them but for a few places. `is`, keyword-only parameters and lists as arguments are refused by the
release notes of NKI 0.3."""


def check_source(function: Callable[..., Any]) -> None:
    """Checks a kernel and the functions it calls by name.

    Raises:
        Refused: one is written in Python that NKI does not read.
    """
    waiting, seen = [function], set()
    while waiting:
        one = waiting.pop()
        one = getattr(one, "func", one)
        if isinstance(one, FunctionType) and one.__code__ not in seen:
            seen.add(one.__code__)
            if not one.__module__.startswith("outcrop_kernels.nki.simulator"):
                waiting += [one.__globals__[name] for name in _check(one) if name in one.__globals__]


@cache
def _check(function: FunctionType) -> tuple[str, ...]:
    """The names that a function calls."""
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError):
        return ()  # No source to read: typed in at a prompt.
    tree = ast.parse(textwrap.dedent("".join(lines)))
    file = function.__code__.co_filename
    called = []
    for node in ast.walk(tree):
        place = Place(file, first + getattr(node, "lineno", 1) - 1)
        if type(node) in _NOT_READ:
            refuse("language", f"{function.__name__} uses {_NOT_READ[type(node)]}", place)
        if isinstance(node, ast.Compare) and any(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
            refuse("language", f"{function.__name__} uses `is`: write == or !=", place)
        if isinstance(node, ast.FunctionDef):
            _check_parameters(node, place)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called.append(node.func.id)
    return tuple(called)


def _check_parameters(node: ast.FunctionDef, place: Place) -> None:
    if node.args.kwonlyargs:
        refuse("language", f"{node.name} has keyword-only parameters", place)
    if node.args.vararg or node.args.kwarg:
        refuse("language", f"{node.name} takes *args or **kwargs", place)
