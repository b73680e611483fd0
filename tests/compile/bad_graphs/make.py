"""Makes the bad graphs: each breaks one rule, as a model might. Run it where torch_xla is (`make xla` makes
such an environment):

    .venv-xla/bin/python tests/compile/bad_graphs/make.py

A graph's file is named after the rule that it breaks, or rule.case where there are several. Shapes are
placeholders, so that a graph of 20 GiB costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from outcrop_compile.hlo.lower import collectives  # isort: skip  (sets what torch_xla reads when imported)

import torch
import torch_xla
from torch import Tensor
from torch_xla.core.xla_builder import Op, create_placeholder_tensor
from torch_xla.experimental.stablehlo_custom_call import stablehlo_custom_call

from outcrop_compile.hlo.rewrite import finished
from outcrop_compile.hlo.wire import Message
from outcrop_kernels import reference
from outcrop_kernels.nki import custom_call

F32, BF16, I32, I64 = torch.float32, torch.bfloat16, torch.int32, torch.int64
GRAPHS: dict[str, Callable[[], Tensor]] = {}
STATES = {"kernel-copies": {0: "argument2"}}
"""Of graphs with some: from outputs to the parameters whose buffers they take."""
Make = Callable[[], Tensor]


def bad(name: str) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        GRAPHS[name] = make
        return make

    return register


def given(*shape: int, dtype: torch.dtype = F32) -> Tensor:
    tensor: Tensor = create_placeholder_tensor(shape, dtype)
    return tensor


@bad("dtype.comparison")
def _() -> Tensor:
    x = given(8, 64)
    return torch.where(x > 0.5, x, torch.zeros_like(x))


@bad("dtype.float64")
def _() -> Tensor:
    return given(8, 64).to(torch.float64).sum(dim=-1)


@bad("not-finite.mask")
def _() -> Tensor:
    scores, hidden = given(8, 64), given(8, 64, dtype=torch.bool)
    return torch.softmax(torch.where(hidden, torch.full_like(scores, float("-inf")), scores), dim=-1)


@bad("s64-bulk.arange")
def _() -> Tensor:
    return torch.arange(4096, device=given(1).device) * 3 + given(4096, dtype=I64)


@bad("s64-bulk.index")
def _() -> Tensor:
    return given(4096, 512)[given(2048, dtype=I32).to(I64) + 1]


@bad("sort.topk")
def _() -> Tensor:
    return torch.topk(given(8, 4096), 50).values


@bad("sort.sample")
def _() -> Tensor:
    return reference.sample(given(4, 4096), given(4, 4), given(4))


@bad("rng.uniform")
def _() -> Tensor:
    return given(8, 64) + torch.rand(8, 64, device=given(1).device)


@bad("rng.multinomial")
def _() -> Tensor:
    return torch.multinomial(torch.softmax(given(8, 32), -1), 1)


@bad("element-scatter")
def _() -> Tensor:
    pool, slots = given(4096, 1024, dtype=BF16), given(64, dtype=I32)
    return torch.scatter(pool, 0, slots[:, None].expand(64, 1024).to(I64), given(64, 1024, dtype=BF16)) * 2


@bad("scatter-combiner")
def _() -> Tensor:
    counts = torch.zeros(512, dtype=I32, device=given(1).device)
    return counts.index_add(0, given(64, dtype=I32), given(64, dtype=I32))


@bad("short-gather")
def _() -> Tensor:
    return torch.take_along_dim(given(64, 4096), given(64, 128, dtype=I32).to(I64), 1)


@bad("out-of-bounds.iota")
def _() -> Tensor:
    return given(64, 512).index_select(0, torch.arange(60, 70, dtype=I32, device=given(1).device))


@bad("out-of-bounds.negative")
def _() -> Tensor:
    return given(64, 512).index_select(0, torch.full((4,), -1, dtype=I32, device=given(1).device))


@bad("integer-division.floor")
def _() -> Tensor:
    return given(64, dtype=I32) // 32


@bad("integer-division.remainder")
def _() -> Tensor:
    return given(64, dtype=I32) % given(64, dtype=I32)


@bad("reduce-window")
def _() -> Tensor:
    return torch.cumsum(given(8, 4096), dim=-1)


@bad("complex")
def _() -> Tensor:
    return given(8, 64, dtype=torch.complex64) * given(8, 64, dtype=torch.complex64)


@bad("unsupported")
def _() -> Tensor:
    return torch.triangular_solve(given(16, 4), given(16, 16)).solution


@bad("custom-call")
def _() -> Tensor:
    x = given(8, 64)
    result: Tensor = stablehlo_custom_call((x,), "MyFusedNorm", (x.shape,), (F32,))
    return result


@bad("topk-integer")
def _() -> Tensor:
    result = stablehlo_custom_call(
        (given(8, 64, dtype=I32),), "AwsNeuronTopK", ((8, 4), (8, 4)), (I32, I32), backend_config="4"
    )
    values: Tensor = result[0]
    return values


@bad("shift-right")
def _() -> Tensor:
    return torch.bitwise_right_shift(
        given(64, dtype=torch.int8), torch.ones_like(given(64, dtype=torch.int8))
    )


@bad("dot-integer.s64")
def _() -> Tensor:
    return given(8, 64, dtype=I64) @ given(64, 8, dtype=I64)


@bad("dot-integer.s8")
def _() -> Tensor:
    return given(8, 64, dtype=torch.int8) @ given(64, 8, dtype=torch.int8)


@bad("u64-constant")
def _() -> Tensor:
    return _built(lambda x: x + Op.constant(x.builder(), torch.tensor(7, dtype=torch.uint64)), torch.uint64)


@bad("fp8")
def _() -> Tensor:
    return given(64, 64).to(torch.float8_e4m3fn).to(BF16) @ given(64, 64, dtype=BF16)


@bad("not-aliased")
def _() -> Tensor:
    return reference.kv_write(
        given(9, 32, 8, 64, dtype=BF16), given(4, dtype=I32), given(4, 8, 64, dtype=BF16)
    )


@bad("power")
def _() -> Tensor:
    return torch.pow(given(8, 64), given(8, 64))


@bad("memory.parameters")
def _() -> Tensor:
    return given(8, 131072, dtype=BF16) @ given(131072, 65536, dtype=BF16)


@bad("memory.temporaries")
def _() -> Tensor:
    """Scores of a prompt of 64k tokens, all at once."""
    return torch.softmax(given(2, 65536, 128, dtype=BF16) @ given(2, 128, 65536, dtype=BF16), dim=-1).sum(
        dim=-1
    )


@bad("instructions")
def _() -> Tensor:
    return (given(65536, 4096, dtype=BF16) @ given(4096, 262144, dtype=BF16)).sum(dim=-1)


@bad("integer-collective")
def _() -> Tensor:
    return collectives(2).all_reduce(given(8, 64, dtype=I32))


@bad("unlisted")
def _() -> Tensor:
    return _built(lambda x: x.clz(), I32)


@bad("control-flow")
def _() -> Tensor:
    return _built(
        lambda x: x.mkwhile(
            (x,), lambda one: one < _scalar(one, 10), lambda one: Op.tuple((one + _scalar(one, 1),))
        ).get_tuple_element(0),
        I32,
        (),
    )


@bad("kernel-copies")
def _() -> Tensor:
    """Its pool is a state: see `STATES`."""
    pool, slots, rows = given(40, 64), given(3, dtype=I32), given(3, 64)
    config = custom_call.stand_in("kv_cache_write", {})
    return stablehlo_custom_call(
        (pool, slots, rows), custom_call.TARGET, ((40, 64),), (F32,), backend_config=config
    )


def _scalar(like: Op, value: int) -> Op:
    return Op.constant(like.builder(), torch.tensor(value, dtype=I32))


def _built(build: Callable[[Op], Op], dtype: torch.dtype, shape: tuple[int, ...] = (64,)) -> Tensor:
    """What no torch expression lowers to, by XLA's own builder."""
    import torch_xla.core.xla_op_registry as registry

    operation = registry.register("outcrop_bad", build)
    result: Tensor = operation(given(*shape, dtype=dtype))
    return result


def with_dynamic_rows(hlo: bytes) -> bytes:
    """The graph with a first dimension that is only bounded, as torch_xla writes it on TPUs."""
    module = Message(hlo)
    computations = module.messages(3)
    for computation in computations:
        instructions = computation.messages(2)
        for one in instructions:
            shape = one.message(3)
            if len(shape.integers(3)) == 2:
                shape.set_integers(6, (1, 0))
                one.set_messages(3, [shape])
        computation.set_messages(2, instructions)
    module.set_messages(3, computations)
    return module.dump()


def main() -> None:
    folder = Path(__file__).parent
    for old in folder.glob("*.hlo.pb"):
        old.unlink()
    for name, make in GRAPHS.items():
        torch_xla._XLAC._set_all_reduce_token(torch_xla._XLAC._xla_get_default_device(), None)
        result = make()
        hlo = torch_xla._XLAC._get_xla_tensors_hlo_proto([result])
        ids, _ = torch_xla._XLAC._get_tensors_xla_device_data_node([result])
        names = [f"argument{place}" for place in range(len(ids))]
        (folder / f"{name}.hlo.pb").write_bytes(finished(hlo, names, STATES.get(name, {})))
    x = given(8, 64)
    hlo = torch_xla._XLAC._get_xla_tensors_hlo_proto([x + x])
    (folder / "dynamic-shape.hlo.pb").write_bytes(with_dynamic_rows(finished(hlo, ["argument0"], {})))


if __name__ == "__main__":
    main()
