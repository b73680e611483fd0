"""Every kernel, in the simulator, says what the reference says, within its contract's tolerance."""

from collections.abc import Iterator
from dataclasses import fields
from itertools import islice

import pytest
import torch

from outcrop_kernels.nki.cases import Case, cases, check
from outcrop_kernels.nki.catalogue import KERNELS, chosen_kernels, weight_layout
from outcrop_kernels.nki.simulator import Refused
from outcrop_kernels.registry import Operations

EVERY = 13
"""Of the small cases, one in so many is run each time; all of them and the large ones, by `make test-all`."""


def sample() -> Iterator[Case]:
    """Some cases of each form of each kernel in each type, among them the first."""
    forms: dict[tuple[str, str, str], list[Case]] = {}
    for case in cases():
        if case.small:
            form, _, kind = case.words.split()
            forms.setdefault((case.kernel, form, kind), []).append(case)
    for found in forms.values():
        yield from islice(found, 0, None, EVERY)


@pytest.mark.parametrize("case", list(sample()), ids=lambda case: f"{case.kernel}-{case.words}")
def test_a_kernel_equals_the_reference(case: Case) -> None:
    """With gathers and without, in turn."""
    outcome = check(case, gather=len(case.words) % 2 == 0)
    assert outcome.error <= outcome.allowed


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_equals_the_reference_on_the_whole_grid(kernel: str) -> None:
    count = 0
    for case in cases():
        if case.kernel == kernel:
            outcome = check(case, gather=count % 2 == 0, seeds=())
            assert outcome.error <= outcome.allowed, case.words
            count += 1
    assert count >= 16


def test_the_grid_covers_every_function_of_every_kernel_in_every_type() -> None:
    wanted = {
        (entry.name, kind)
        for kernel in KERNELS.values()
        for entry in kernel.entries
        for kind in entry.contract.tolerance
    }
    seen = set()
    for case in sample():
        entry, arguments, _ = case.make()
        seen.add((entry.name, str(arguments[0].dtype).removeprefix("torch.")))
    assert wanted == seen


def test_every_case_is_within_its_contract() -> None:
    for case in sample():
        entry, arguments, expected = case.make()
        contract = entry.contract
        tensors = [one for one in arguments if isinstance(one, torch.Tensor)]
        assert contract.refusal(tensors, {"C": 8}) is None, case.words
        assert [len(one.shape.split()) for one in contract.results] == [one.dim() for one in expected]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"query": (2, 1, 4, 96)}, "D is 96 and, of key_pool, 64"),
        ({"query": (2, 1, 64)}, "query has 3 dimensions, not 4"),
        ({"query": (2, 80, 4, 64), "positions": (2, 80)}, "not Q * H / K at most 128"),
        ({"key_pool": (3, 256, 2, 64), "value_pool": (3, 256, 2, 64)}, "not S at most 128"),
        ({"tables": (2, 600)}, None),
        ({"tables": (2, 20_000)}, "not scores of a row"),
    ],
)
def test_a_contract_says_what_it_does_not_take(
    changed: dict[str, tuple[int, ...]], reason: str | None
) -> None:
    shapes: dict[str, tuple[int, ...]] = {
        "query": (2, 1, 4, 64), "key_pool": (3, 32, 2, 64), "value_pool": (3, 32, 2, 64),
        "tables": (2, 8), "positions": (2, 1),
    } | changed  # fmt: skip
    integers = ("tables", "positions")
    tensors = [
        torch.zeros(shape, dtype=torch.int32 if name in integers else torch.float32, device="meta")
        for name, shape in shapes.items()
    ]
    refusal = KERNELS["paged_decode_attention"].entries[0].contract.refusal(tensors)
    if reason is None:
        assert refusal is None
    else:
        assert refusal is not None
        assert reason in refusal
    tensors[0] = tensors[0].to(torch.float16)
    assert KERNELS["paged_decode_attention"].entries[0].contract.refusal(tensors) is not None


def test_kernels_implement_operations_of_the_registry() -> None:
    names = {field.name for field in fields(Operations)}
    assert {name for kernel in KERNELS.values() for name in kernel.operations} <= names


def test_kernels_are_chosen_by_name() -> None:
    assert chosen_kernels("none") == frozenset()
    assert chosen_kernels(" rope, kv_cache_write") == {"rope", "kv_cache_write"}
    assert "paged_decode_attention" in chosen_kernels("all")
    with pytest.raises(ValueError, match="there is no kernel ropes; there are all, none, or some of fused_"):
        chosen_kernels("swiglu_mlp,ropes,rope")


def test_kernels_that_stream_weights_want_their_inputs_first() -> None:
    assert weight_layout(["rope", "paged_decode_attention"]) == "outputs-first"
    assert weight_layout(["rope", "swiglu_mlp"]) == "inputs-first"
    assert {name for name, kernel in KERNELS.items() if kernel.layout == "inputs-first"} == {
        "fused_qkv", "swiglu_mlp", "int8_dequant_matmul",
    }  # fmt: skip


def test_a_contract_says_what_a_kernel_makes() -> None:
    for case in sample():
        entry, arguments, expected = case.make()
        tensors = [one for one in arguments if isinstance(one, torch.Tensor)]
        wide = tensors[0].shape[1]
        sizes = {"C": expected[0].shape[-1]}
        if entry.name == "fused_qkv":
            dim = expected[0].shape[2]
            sizes = {"H": expected[0].shape[1], "K": expected[1].shape[1], "D": dim}
            assert wide == tensors[2].shape[0]
        made = entry.contract.made(tensors, sizes)
        assert [shape for shape, _ in made] == [tuple(one.shape) for one in expected], case.words
        assert {dtype for _, dtype in made} <= {*entry.contract.tolerance, "int32"}


def test_without_the_capability_a_gather_is_refused() -> None:
    """What a device has to show before a build may use it."""
    case = next(case for case in cases() if case.kernel == "kv_cache_write")
    entry, arguments, _ = case.make()
    from outcrop_kernels.nki.simulator import simulate

    with pytest.raises(Refused, match="indirect-dma"):
        simulate(entry.function, *arguments, True, mutable=entry.mutable)
