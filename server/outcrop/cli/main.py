"""The `outcrop` command."""

from __future__ import annotations

import typer

from outcrop import __version__
from outcrop.cli import bench, compile, cost, doctor, kernels, keys, serve, simulate

app = typer.Typer(
    help="Serve open-weight Llama 3 behind an Amazon-Bedrock-compatible API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(epilog=serve.EPILOG)(serve.serve)
app.command()(doctor.doctor)
app.command()(bench.bench)
app.add_typer(compile.app, name="compile")
app.add_typer(keys.app, name="keys")
app.add_typer(kernels.app, name="kernels")
app.add_typer(cost.app, name="cost")
app.add_typer(simulate.app, name="simulate")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"outcrop {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


def main() -> None:
    app(prog_name="outcrop")


if __name__ == "__main__":
    main()
