"""The arguments of this version's names."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar


@cache
def arguments(name: str) -> frozenset[str]:
    """Of a name, as the list of the installed version has them."""
    path = Path(__file__).parents[2] / "surface" / f"{metadata.version('vllm')}.toml"
    (entry,) = (each for each in tomllib.loads(path.read_text())["names"] if each["name"] == name)
    return frozenset(entry["arguments"])


def require(name: str, given: Iterable[str]) -> None:
    """Raises TypeError, as a call does, for an argument that the name does not have."""
    for each in given:
        if each not in arguments(name):
            raise TypeError(f"{name}() got an unexpected keyword argument {each!r}")


class Arguments:
    """An object with an attribute for each of the arguments of a name; None for those that are not given.
    defaults: of others."""

    NAME = ""
    DEFAULTS: ClassVar[dict[str, Any]] = {}

    def __init__(self, **given: Any) -> None:
        require(self.NAME, given)
        for each in arguments(self.NAME):
            setattr(self, each, given.get(each, self.DEFAULTS.get(each)))
