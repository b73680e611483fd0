"""A bill of usage on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from outcrop.cost.served import Deployment
from outcrop.cost.usage_bill import UsageBill


def print_bill(bill: UsageBill, deployment: Deployment, console: Console) -> None:
    """Who used what, what it cost, and what it would have."""
    console.print(f"{bill.since:%Y-%m-%d %H:%M} to {bill.until:%Y-%m-%d %H:%M} UTC")
    if not bill.rows:
        console.print("Nothing was used.")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("tenant", "model"):
        table.add_column(name, overflow="fold")
    for name in ("requests", "input", "cached", "output", "USD here"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in bill.rows:
        each = row.usage
        table.add_row(
            each.tenant or "-",
            each.model,
            f"{each.requests:,}",
            f"{each.input_tokens:,}",
            f"{each.cached_tokens:,}",
            f"{each.output_tokens:,}",
            "-" if row.usd is None else f"{row.usd:,.4f}",
        )
    console.print(table)
    console.print()
    _print_bedrock(bill, console)
    _print_imported(bill, console)
    if bill.usd is None:
        console.print(
            "What it cost here is not known: name what served (--instance, or \\[cost] in outcrop.toml)."
        )
    else:
        console.print(
            f"Here: {deployment.count} x {deployment.instance}, {deployment.option}, for the whole period: "
            f"${bill.usd:,.2f}, shared out by what the tokens cost on Bedrock."
        )


def _print_bedrock(bill: UsageBill, console: Console) -> None:
    models = dict.fromkeys(model for row in bill.rows for model in row.bedrock)
    table = Table(
        title="The same on Bedrock", title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False
    )
    table.add_column("as")
    table.add_column("USD", justify="right")
    for model in models:
        table.add_row(model, f"{sum(row.bedrock.get(model, 0.0) for row in bill.rows):,.4f}")
    console.print(table)
    console.print()


def _print_imported(bill: UsageBill, console: Console) -> None:
    for each in bill.imported:
        console.print(
            f"{each.model}: Bedrock has no price of its tokens. Imported there, a copy of it is paid by the "
            f"time that it runs: called in {each.windows:,} windows of five minutes, "
            f"${each.usd_per_unit:,.2f} for each custom model unit of one copy."
        )
    if bill.imported:
        price = bill.imported[0]
        console.print(
            f"Custom Model Import: ${price.unit_minute} a unit and minute in {price.region} "
            f"({price.price_date}), ${price.unit_month} a unit and month for keeping the model. "
            "GetImportedModel says how many units a copy takes (Llama 3.1 8B: 2, 70B: 8); Bedrock runs more "
            "copies as calls come."
        )
        console.print()
