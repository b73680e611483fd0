"""`outcrop compile plan`: what a model needs on an instance, before anything is compiled.

What the command works with is imported when it runs: it takes a while, and `outcrop --help` needs none of it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from outcrop.cli.compile import options
from outcrop.cli.serve import fail


def plan(
    model: options.Model,
    instance: options.InstanceType,
    tp: options.Degree = None,
    max_model_len: options.MaxModelLen = None,
    batch: options.Batch = 32,
    block_size: options.BlockSize = 32,
    slots: options.Slots = False,
    dtype: options.DtypeName = "bfloat16",
    speculative_tokens: options.SpeculativeTokens = 0,
    reserve: options.Reserve = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a model needs on an instance, how much context fits and how fast it can be at best.

    For example: outcrop compile plan --model Llama-3.1-8B --instance inf2.8xlarge
    """
    from outcrop.cli.compile.plan_report import plan_as_json, print_plan, print_refusal, refusal_as_json
    from outcrop_compile.plan import PlanRefused, make_plan

    try:
        request = options.plan_request(
            model, instance, tp=tp, max_model_len=max_model_len, batch=batch, block_size=block_size,
            slots=slots, dtype=dtype, speculative_tokens=speculative_tokens, reserve=reserve,
        )  # fmt: skip
    except ValueError as error:
        fail(str(error))
    try:
        found = make_plan(request)
    except PlanRefused as refusal:
        typer.echo(refusal_as_json(refusal)) if as_json else print_refusal(refusal)
        raise typer.Exit(1) from None
    typer.echo(plan_as_json(found)) if as_json else print_plan(found)
