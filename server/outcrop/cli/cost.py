"""`outcrop cost`: what tokens cost here, and what they would cost on Bedrock.

What the commands work with is imported when they run: it takes a while, and `outcrop --help` needs none of
it."""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from outcrop.cli.compile import options
from outcrop.cli.html_file import write_html
from outcrop.cli.serve import fail

if TYPE_CHECKING:
    from outcrop.cost.prices import PriceBook, PurchaseOption, Tier
    from outcrop.cost.throughput import Throughput
    from outcrop.cost.workload import Workload

app = typer.Typer(help="Price tokens on an instance and on Bedrock.", no_args_is_help=True)


Model = Annotated[str, options.option("MODEL", "Such as Llama-3.1-8B or its Bedrock id.")]
InstanceType = Annotated[
    str, options.option("TYPE", "Such as inf2.xlarge; `outcrop cost prices` lists them.")
]
Option = Annotated[
    str,
    typer.Option("--option", help="on-demand, reserved (1 year; or reserved-3yr) or spot.", metavar="HOW"),
]
Load = Annotated[
    str,
    options.option("LOAD", "rps=2,in=1500,out=250, of which rps may be left out, or a trace (JSONL, CSV)."),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FIGURES",
        help="published, simulate, or a file that `outcrop bench --json` or `outcrop simulate --json` "
        "wrote (default: published, if there are figures).",
    ),
]
Region = Annotated[str, options.option("REGION", "Whose prices.")]
Utilisation = Annotated[
    float | None,
    options.option("SHARE", "How busy an instance is, such as 0.3 (default: what the load makes of it)."),
]
Overhead = Annotated[
    float, options.option("SHARE", "On top of the instance: storage, transfer; such as 0.1.")
]
Against = Annotated[
    list[str] | None,
    options.option(
        "MODEL[:TIER]",
        "Compare with this one instead of the usual; tier batch, flex or priority. Repeatable.",
    ),
]
Prices = Annotated[
    Path | None, options.option("FILE", "Prices of your own, JSON or TOML; they go before all others.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def compare(
    model: Model,
    instance: InstanceType,
    load: Load,
    option: Option = "on-demand",
    source: From = None,
    region: Region = "us-east-1",
    utilisation: Utilisation = None,
    overhead: Overhead = 0.0,
    against: Against = None,
    prices: Prices = None,
    html: Annotated[
        Path | None, options.option("FILE", "Write a report, with plots (needs outcrop\\[plots]).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a load costs on an instance and on Bedrock, and at which load they cost the same.

    For example: outcrop cost compare --model Llama-3.1-8B --instance inf2.xlarge --load rps=1,in=1500,out=250
    """
    from outcrop.cost.as_json import as_json as to_json
    from outcrop.cost.compare import Question
    from outcrop.cost.compare import compare as answer
    from outcrop.cost.workload import Workload

    if utilisation is not None and not 0 < utilisation <= 1:
        fail(f"--utilisation {utilisation}: it is a share, more than 0 and at most 1")
    if overhead < 0:
        fail(f"--overhead {overhead}: it is a share, such as 0.1 for a tenth")
    try:
        name, bedrock_id = _names(model)
        question = Question(
            model=bedrock_id,
            instance=instance,
            option=_purchase_option(option),
            region=region,
            load=Workload.parse(load),
            utilisation=utilisation,
            overhead=overhead,
            against=None if against is None else [_model_and_tier(each) for each in against],
        )
        throughput = _throughput(source, name, instance, question.load)
        found = answer(question, _book(prices), throughput, datetime.date.today())
    except ValueError as error:
        fail(str(error))
    if html is not None:
        from outcrop.cost.report import html_report

        write_html(html, lambda: html_report(found))
    if as_json:
        typer.echo(json.dumps(to_json(found), indent=2))
        return
    from rich.console import Console

    from outcrop.cost.table import print_comparison

    print_comparison(found, Console(highlight=False))


@app.command()
def refresh(
    region: Annotated[
        list[str] | None, options.option("REGION", "Whose prices (default: us-east-1). Repeatable.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(metavar="URL", hidden=True)] = None,
) -> None:
    """Read current prices from the AWS Price List. What cannot be read stays as it was.

    A region's EC2 list is some hundreds of megabytes. Spot prices are not in the list.
    """
    from outcrop.cost import price_list
    from outcrop.cost.prices import load_prices, read_file, refreshed_file

    path, today = refreshed_file(), datetime.date.today()
    try:
        book = load_prices()
        old = read_file(path) if path.exists() else None
    except ValueError as error:
        fail(str(error))
    found = price_list.refresh(
        old,
        region or ["us-east-1"],
        price_list.known_instances(book),
        today=today,
        endpoint=endpoint or price_list.ENDPOINT,
        progress=lambda text: typer.echo(text, err=True),
    )
    if found.models or found.instances:
        try:
            price_list.write(found.prices, path)
        except OSError as error:
            fail(f"{path}: {error.strerror or error}")
        typer.echo(f"{found.models} prices of models and {found.instances} of instances, kept in {path}")
    for each in found.kept:
        typer.echo(f"not read: {each}", err=True)
    _print_ages(load_prices(), today)
    if found.kept:
        raise typer.Exit(1)


@app.command()
def usage(
    since: Annotated[str, options.option("WHEN", "7d, 12h, or a date such as 2026-11-01 (UTC).")] = "30d",
    until: Annotated[str | None, options.option("WHEN", "The same (default: now).")] = None,
    tenant: Annotated[str | None, options.option("NAME", "Only this one.")] = None,
    model: Annotated[str | None, options.option("ID", "Only this one, as it is served.")] = None,
    instance: Annotated[
        str | None, options.option("TYPE", "What served (default: \\[cost] of the configuration file).")
    ] = None,
    option: Option = "on-demand",
    instances: Annotated[int, options.option("N", "How many of them.")] = 1,
    region: Region = "us-east-1",
    prices: Prices = None,
    state: Annotated[
        str | None, options.option("FILE", "The server's database (default: that of `serve`).")
    ] = None,
    config: Annotated[Path | None, options.option("FILE", "The server's configuration file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what was used, by tenant and model, what it cost here and what it would have cost on Bedrock.

    For example: outcrop cost usage --since 7d --instance inf2.xlarge --option spot
    """
    from outcrop.cost.served import Deployment
    from outcrop.cost.usage_bill import bill, unpriced
    from outcrop.ledger.usage_report import count_windows, reading, sum_usage
    from outcrop.settings import load_ledger_settings

    if instances < 1:
        fail(f"--instances {instances}: it has to be at least 1")
    try:
        settings = load_ledger_settings(config)
        now = datetime.datetime.now(datetime.UTC)
        begin, end = (
            _instant("--since", since, now),
            now if until is None else _instant("--until", until, now),
        )
        if begin >= end:
            fail(f"--since {since}: that is not before the end of the period")
        cost = settings.cost
        deployment = (
            Deployment(cost.instance, cost.option, cost.instances, region, prices or cost.prices)
            if instance is None
            else Deployment(instance, _purchase_option(option), instances, region, prices or cost.prices)
        )
        book = _book(deployment.prices)
        where = state or settings.state
        if "://" not in where and not Path(where).expanduser().exists():
            fail(f"{where}: there is no such database; --state names that of the server")
        with reading(where) as session:
            sums = sum_usage(session, begin, end, tenant=tenant, model=model)
            windows = {
                each: count_windows(session, begin, end, each, tenant=tenant)
                for each in unpriced(sums, deployment, book)
            }
        found = bill(sums, windows, begin, end, deployment, book)
    except (ValueError, OSError) as error:
        fail(str(error))
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2, default=str))
        return
    from rich.console import Console

    from outcrop.cost.usage_table import print_bill

    print_bill(found, deployment, Console(highlight=False))


def _instant(name: str, text: str, now: datetime.datetime) -> datetime.datetime:
    """Raises ValueError."""
    units = {"d": "days", "h": "hours", "m": "minutes"}
    if text[:-1].isdecimal() and text[-1:] in units:
        return now - datetime.timedelta(**{units[text[-1]]: int(text[:-1])})
    try:
        when = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name} {text}: write 7d, 12h, 30m, or a date such as 2026-11-01") from None
    return when if when.tzinfo is not None else when.replace(tzinfo=datetime.UTC)


@app.command()
def prices(
    prices: Prices = None,
    region: Annotated[str | None, options.option("REGION", "Only this one.")] = None,
    search: Annotated[str, options.option("TEXT", "Only models and instances with this in their name.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the prices that are known, where they are from and how old they are."""
    book = _known_or_fail(prices)
    rows = [
        *(
            (row.model, row.region, row.tier, f"{row.input} / {row.output}", source)
            for row, source in book.bedrock
        ),
        *(
            (row.instance, row.region, row.option, f"{row.usd_per_hour}", source)
            for row, source in book.instances
        ),
        *(
            ("imported model", row.region, "a unit's minute", f"{row.unit_minute}", source)
            for row, source in book.imports
        ),
    ]
    chosen = [row for row in rows if search in row[0] and region in (None, row[1])]
    if as_json:
        names = ("name", "region", "kind", "usd")
        listed = [
            dict(zip(names, row, strict=False)) | {"date": row[4].date.isoformat(), "source": row[4].name}
            for row in chosen
        ]
        typer.echo(json.dumps(listed, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title="USD: of models for a million tokens, input / output; of instances for an hour; of imported "
        "models for a minute of each custom model unit"
    )
    for name in ("", "region", "", "price", "of"):
        table.add_column(name)
    for row in chosen:
        table.add_row(*row[:4], row[4].date.isoformat())
    Console(highlight=False).print(table)
    _print_ages(book, datetime.date.today())


def _print_ages(book: PriceBook, today: datetime.date) -> None:
    from outcrop.cost.prices import STALE_AFTER

    sources = {source: None for _, source in (*book.bedrock, *book.instances, *book.imports)}
    for source in sorted(sources, key=lambda each: each.date):
        age = (today - source.date).days
        mind = "  (old: outcrop cost refresh)" if age > STALE_AFTER.days else ""
        typer.echo(f"{source.date}, {age} days ago{mind}: {source.name}", err=True)


def _names(model: str) -> tuple[str, str]:
    """Outcrop's name of a model, and Bedrock's id. Another model of Bedrock is known by its id alone."""
    from outcrop.catalog.identifiers import resource_name, without_geography
    from outcrop_compile.shapes import find_shape

    shape = find_shape(without_geography(resource_name(model)))
    if shape is None:
        return model, model
    bedrock = next(alias for alias in shape.aliases if alias.startswith("meta.") and alias.endswith(":0"))
    return shape.name, model if resource_name(model).endswith(bedrock) else bedrock


def _purchase_option(text: str) -> PurchaseOption:
    from outcrop.cost.prices import purchase_option

    return purchase_option("reserved-1yr" if text == "reserved" else text)


def _model_and_tier(text: str) -> tuple[str, Tier]:
    """Model ids have colons of their own."""
    from outcrop.cost.prices import Tier

    name, _, last = text.rpartition(":")
    for tier in get_args(Tier):
        if name and last == tier:
            return name, tier
    return text, "standard"


def _throughput(source: str | None, model: str, instance: str, load: Workload) -> Throughput | None:
    """Raises ThroughputError."""
    from outcrop.cost import throughput
    from outcrop.cost.simulated import simulate_throughput

    if source == "simulate":
        return simulate_throughput(model, instance, load)
    ratio = load.ratio
    if source not in (None, "published"):
        return throughput.read_measured(Path(str(source)), instance)
    found = throughput.find_published(model, instance, ratio)
    if found is None and source is not None:
        pairs = ", ".join(f"{name} on {where}" for name, where in throughput.published_pairs())
        raise throughput.ThroughputError(
            f"--from published: there are no figures of {model} on {instance}; there are some of {pairs}"
        )
    return found


def _book(path: Path | None) -> PriceBook:
    """Raises PriceError."""
    from outcrop.cost.prices import load_prices

    return load_prices(path)


def _known_or_fail(path: Path | None) -> PriceBook:
    try:
        return _book(path)
    except ValueError as error:
        fail(str(error))
