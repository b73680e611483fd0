"""How much SBUF and PSUM a run had in use at once."""

from __future__ import annotations

from collections.abc import Callable

from outcrop_kernels.nki.simulator import memory
from outcrop_kernels.nki.simulator.machine import Machine
from outcrop_kernels.nki.simulator.memory import Life, MemoryRegion
from outcrop_kernels.nki.simulator.rules import refuse


def check_budgets(machine: Machine) -> None:
    """Fills in the report's peaks. A tensor is in use from its first write to its last use, in program order:
    what the compiler needs at least, since overlapping engines keep more alive.

    Raises:
        Refused: more is in use at once than there is; names where the tensor that did not fit was allocated.
    """
    report = machine.report
    report.sbuf_peak = _peak(
        machine,
        MemoryRegion.sbuf,
        lambda life: life.bytes,
        memory.SBUF_BYTES,
        "sbuf-budget",
    )
    report.psum_peak = _peak(machine, MemoryRegion.psum, _banks, memory.PSUM_BANKS, "psum-budget")


def _banks(life: Life) -> int:
    return -(-life.bytes // memory.PSUM_BANK_BYTES)


def _peak(machine: Machine, region: MemoryRegion, size: Callable[[Life], int], limit: int, rule: str) -> int:
    held = [one for one in machine.lives if one.buffer is region and one.first is not None]
    events = sorted(
        [(one.first or 0, 1, number) for number, one in enumerate(held)]
        + [(one.last + 1, 0, number) for number, one in enumerate(held)]
    )
    used = peak = 0
    alive: set[int] = set()
    for _, starts, number in events:
        if not starts:
            used -= size(held[number])
            alive.discard(number)
            continue
        used += size(held[number])
        alive.add(number)
        peak = max(peak, used)
        if used > limit:
            others = ", ".join(
                f"{held[one].name or 'line ' + str(held[one].place.line)}" for one in sorted(alive)[:8]
            )
            refuse(
                rule,
                f"{used} {'bytes per partition' if rule == 'sbuf-budget' else 'banks'} are in use at once "
                f"by {len(alive)} tensors ({others}{', ...' if len(alive) > 8 else ''})",
                held[number].place,
            )
    return peak
