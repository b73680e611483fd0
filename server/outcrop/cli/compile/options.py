"""The options that commands of `outcrop compile` have in common: what is wanted of a model and a machine.

What they work with is imported when a command runs: it takes a while, and `outcrop --help` needs none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from outcrop.cli.compile.models import model_config

if TYPE_CHECKING:
    from outcrop_compile.instances import Instance
    from outcrop_compile.plan import Dtype, PlanRequest


def option(metavar: str, text: str) -> Any:
    return typer.Option(metavar=metavar, help=text)


Model = Annotated[str, option("MODEL", "Checkpoint, or a name such as Llama-3.1-8B or its Bedrock id.")]
InstanceType = Annotated[str, option("TYPE", "Such as inf2.8xlarge or trn1.32xlarge.")]
Degree = Annotated[int | None, option("N", "NeuronCores that share the model (default: what suits both).")]
MaxModelLen = Annotated[
    int | None, option("TOKENS", "Context: prompt and answer (default: 8192, or the model's if less).")
]
Batch = Annotated[int, option("N", "Requests computed side by side.")]
BlockSize = Annotated[int, option("TOKENS", "Tokens of a KV block.")]
Slots = Annotated[
    bool,
    typer.Option("--slots", help="Blocks of a whole sequence: for compilers that fail with NCC_ITEN404."),
]
DtypeName = Annotated[str, option("NAME", "bfloat16, float32, or int8, which is of weights.")]
SpeculativeTokens = Annotated[int, option("N", "Guesses that a verify step takes; 0 for no such steps.")]
Reserve = Annotated[
    str | None,
    option("SIZE", "HBM of a core left for code and runtime, such as 4G (default: an estimate)."),
]


def plan_request(
    model: str,
    instance: str,
    *,
    tp: int | None,
    max_model_len: int | None,
    batch: int,
    block_size: int,
    slots: bool,
    dtype: str,
    speculative_tokens: int,
    reserve: str | None,
) -> PlanRequest:
    """Raises ValueError for what an option cannot be."""
    from outcrop_compile.plan import PlanRequest

    name, config = model_config(model)
    return PlanRequest(
        name,
        config,
        _instance(instance),
        tp=tp,
        max_model_len=max_model_len,
        batch=batch,
        block_size=block_size,
        slots=slots,
        dtype=dtype_of(dtype),
        guesses=speculative_tokens,
        reserve=_reserve(reserve),
    )


def _instance(name: str) -> Instance:
    from outcrop_compile.instances import INSTANCES

    if name not in INSTANCES:
        raise ValueError(f"--instance {name}: not one with NeuronCore-v2; there are {', '.join(INSTANCES)}")
    return INSTANCES[name]


def _reserve(size: str | None) -> int | None:
    from outcrop.setting_types import parse_size

    try:
        return None if size is None else parse_size(size)
    except ValueError as error:
        raise ValueError(f"--reserve: {error}") from None


def dtype_of(name: str) -> Dtype:
    """Raises ValueError."""
    from outcrop_compile.plan.request import DTYPES

    for dtype in DTYPES:
        if name == dtype:
            return dtype
    raise ValueError(f"--dtype {name}: there are {', '.join(DTYPES)}")
