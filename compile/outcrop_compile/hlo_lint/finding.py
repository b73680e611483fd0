"""One breach of a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from outcrop_compile.hlo.module import Computation, HloModule, Instruction
from outcrop_compile.hlo_lint.rules import RULES, Rule


@dataclass(frozen=True, slots=True)
class Finding:
    """file: the module's. instruction: as HLO text begins it, or empty where the whole module is meant.
    source: what in the model it came from, as far as its maker noted it. detail: what is wrong with this
    one."""

    file: str
    rule: Rule
    instruction: str
    source: str
    detail: str


Breach = tuple[Instruction | None, str]
"""An instruction, or None for the module, and what is wrong with it."""
Check = Callable[[HloModule], Iterator[Breach]]
CHECKS: dict[str, Check] = {}


def checks(rule: str) -> Callable[[Check], Check]:
    """The function that finds breaches of a rule."""
    assert rule in RULES

    def register(check: Check) -> Check:
        CHECKS[rule] = check
        return check

    return register


def everywhere(module: HloModule) -> Iterator[tuple[Computation, Instruction]]:
    for computation in module.computations.values():
        for instruction in computation.instructions:
            yield computation, instruction
