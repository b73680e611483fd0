"""`outcrop compile plan`: what a model needs on an instance, before anything is compiled.

What the command works with is imported when it runs: it takes a while, and `outcrop --help` needs none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from outcrop.cli.compile.models import model_config
from outcrop.cli.serve import fail

if TYPE_CHECKING:
    from outcrop_compile.instances import Instance
    from outcrop_compile.plan import Dtype


def _option(metavar: str, text: str) -> Any:
    return typer.Option(metavar=metavar, help=text)


def _instance(name: str) -> Instance:
    from outcrop_compile.instances import INSTANCES

    if name not in INSTANCES:
        raise ValueError(f"--instance {name}: not one with NeuronCore-v2; there are {', '.join(INSTANCES)}")
    return INSTANCES[name]


def _reserve(size: str | None) -> int | None:
    from outcrop.settings import parse_size

    try:
        return None if size is None else parse_size(size)
    except ValueError as error:
        raise ValueError(f"--reserve: {error}") from None


def _dtype(name: str) -> Dtype:
    from outcrop_compile.plan.request import DTYPES

    for dtype in DTYPES:
        if name == dtype:
            return dtype
    raise ValueError(f"--dtype {name}: there are {', '.join(DTYPES)}")


def plan(
    model: Annotated[str, _option("MODEL", "Checkpoint, or a name such as Llama-3.1-8B or its Bedrock id.")],
    instance: Annotated[str, _option("TYPE", "Such as inf2.8xlarge or trn1.32xlarge.")],
    tp: Annotated[
        int | None, _option("N", "NeuronCores that share the model (default: what suits both).")
    ] = None,
    max_model_len: Annotated[
        int | None, _option("TOKENS", "Context: prompt and answer (default: 8192, or the model's if less).")
    ] = None,
    batch: Annotated[int, _option("N", "Requests computed side by side.")] = 32,
    block_size: Annotated[int, _option("TOKENS", "Tokens of a KV block.")] = 32,
    slots: Annotated[
        bool,
        typer.Option("--slots", help="Blocks of a whole sequence: for compilers that fail with NCC_ITEN404."),
    ] = False,
    dtype: Annotated[str, _option("NAME", "bfloat16, float32, or int8, which is of weights.")] = "bfloat16",
    speculative_tokens: Annotated[
        int, _option("N", "Guesses that a verify step takes; 0 for no such steps.")
    ] = 0,
    reserve: Annotated[
        str | None,
        _option("SIZE", "HBM of a core left for code and runtime, such as 4G (default: an estimate)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a model needs on an instance, how much context fits and how fast it can be at best.

    For example: outcrop compile plan --model Llama-3.1-8B --instance inf2.8xlarge
    """
    from outcrop.cli.compile.plan_report import plan_as_json, print_plan, print_refusal, refusal_as_json
    from outcrop_compile.plan import PlanRefused, PlanRequest, make_plan

    try:
        name, config = model_config(model)
        request = PlanRequest(
            name,
            config,
            _instance(instance),
            tp=tp,
            max_model_len=max_model_len,
            batch=batch,
            block_size=block_size,
            slots=slots,
            dtype=_dtype(dtype),
            guesses=speculative_tokens,
            reserve=_reserve(reserve),
        )
    except ValueError as error:
        fail(str(error))
    try:
        found = make_plan(request)
    except PlanRefused as refusal:
        typer.echo(refusal_as_json(refusal)) if as_json else print_refusal(refusal)
        raise typer.Exit(1) from None
    typer.echo(plan_as_json(found)) if as_json else print_plan(found)
