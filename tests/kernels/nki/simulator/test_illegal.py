"""What the chip or the compiler would refuse is refused, for the right reason and at the right line."""

import inspect
import re

import pytest
from tests.kernels.nki.simulator.illegal import Illegal, illegal

from outcrop_kernels.nki.simulator import RULES, Refused, machine, simulate


def _marked(case: Illegal) -> tuple[str, int]:
    """The rule and the line that the source marks."""
    lines, first = inspect.getsourcelines(getattr(case.marked or case.kernel, "func", case.marked))
    (found,) = [
        (match[1], first + number)
        for number, line in enumerate(lines)
        if (match := re.search(r"# <- ([\w-]+)$", line.rstrip()))
    ]
    return found


@pytest.mark.parametrize("case", illegal(), ids=lambda case: case.kernel.__name__)
def test_an_illegal_kernel_is_refused_at_its_line(case: Illegal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MAX_INSTRUCTIONS", 5000)
    rule, line = _marked(case)
    with pytest.raises(Refused) as refusal:
        simulate(case.kernel, *case.arguments(), **case.options)
    assert (refusal.value.rule.name, refusal.value.place.line) == (rule, line), str(refusal.value)
    assert "illegal" in refusal.value.place.file


def test_every_rule_refuses_some_kernel() -> None:
    assert {_marked(case)[0] for case in illegal()} == set(RULES)


def test_a_refusal_says_what_where_why_and_what_to_do() -> None:
    case = next(one for one in illegal() if one.kernel.__name__ == "a_matmul_into_sbuf")
    with pytest.raises(Refused) as refusal:
        simulate(case.kernel, *case.arguments())
    said, rule = str(refusal.value), RULES["matmul-memory"]
    assert "illegal_instructions.py:" in said
    assert "nisa.nc_matmul(dst=total, stationary=tile, moving=tile)" in said
    assert "not in PSUM" in said
    assert all(part in said for part in (rule.limit, rule.why, rule.mend, rule.source))
