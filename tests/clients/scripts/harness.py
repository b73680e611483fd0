"""What the programs in this folder share.

Each is a small application of one client library, written as its users write them. It takes a task (the
JSON of `cases.Task`) as its only argument, makes its calls one after another, and prints one line of JSON:

    {"versions": {"boto3": "1.44.5"}, "transport": "HTTP/1.1", "results": {"plain": {"text": "Paris", ...}}}

A result is what came back, in these words: text, pieces (of a stream), stop, usage [input, output], calls
[{name, arguments}], value (a structured answer), tokens, models. A call that raised has `raised`, the names
of the exception's classes, and `message` instead.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import warnings
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

Result = dict[str, Any]
Check = Callable[[], Result | Awaitable[Result]]


def load_task() -> dict[str, Any]:
    """What to ask, and whom."""
    task: dict[str, Any] = json.loads(sys.argv[1])
    return task


def report(packages: tuple[str, ...], checks: dict[str, Check], transport: str = "HTTP/1.1") -> None:
    """Make the calls that the task asks for, among those that the client has, and print what came back."""
    warnings.simplefilter("ignore")
    wanted = load_task()["checks"]
    results = asyncio.run(_results({name: check for name, check in checks.items() if name in wanted}))
    versions = {package: version(package) for package in packages}
    print(json.dumps({"versions": versions, "transport": transport, "results": results}))


async def _results(checks: dict[str, Check]) -> dict[str, Result]:
    return {name: await _result(check) for name, check in checks.items()}


async def _result(check: Check) -> Result:
    """One check's outcome. Synchronous clients run in a thread: some start an event loop of their own."""
    try:
        if inspect.iscoroutinefunction(check):
            return await check()
        return await asyncio.to_thread(check)  # type: ignore[arg-type]
    except Exception as error:
        return {"raised": [each.__name__ for each in type(error).__mro__], "message": str(error)}
