"""The list of names that kernels may use is what the simulator has, and others are refused by name."""

import types

import pytest

from outcrop_kernels.nki.language import nisa, nl
from outcrop_kernels.nki.simulator import Refused
from outcrop_kernels.nki.simulator.memory import MemoryRegion
from outcrop_kernels.nki.simulator.ops import Op
from outcrop_kernels.nki.subset import NAMES


def _of_nki(name: str, value: object) -> bool:
    """Types, memories, operators, and what the module itself defines."""
    made = isinstance(value, str | MemoryRegion | Op) or getattr(value, "__module__", "") == nl.__name__
    return made and not name.startswith("_")


def test_the_list_is_what_the_simulator_has() -> None:
    named = {(one.module, one.name) for one in NAMES}
    language = {name for name, value in vars(nl).items() if _of_nki(name, value)}
    assert {name for module, name in named if module == "nl"} == language
    assert {name for module, name in named if module == "nisa"} == set(nisa.__all__)
    assert len(named) == len(NAMES)
    assert all(one.source.startswith("https://github.com/aws-neuron/") for one in NAMES)


@pytest.mark.parametrize(
    ("module", "name", "said"),
    [
        (nl, "load", "use nisa.dma_copy"),
        (nl, "softmax", "use nisa.tensor_reduce"),
        (nl, "fori_loop", "static bounds"),
        (nl, "mod", "does not exist in hardware"),
        (nl, "float8_e4m3", "not simulated"),
        (nl, "no_such_name", "not in all of SDK 2.28 to 2.32"),
        (nisa, "range_select", "use nisa.iota"),
        (nisa, "exponential", "use nisa.activation"),
        (nisa, "no_such_name", "not among the simulated instructions"),
    ],
)
def test_other_names_are_refused_with_what_to_use(module: types.ModuleType, name: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        getattr(module, name)
    assert not hasattr(module, name)
