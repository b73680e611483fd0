"""`outcrop compile`: from a checkpoint to an artifact that a Neuron device serves.

What the commands work with is imported when they run: it takes a while, and `outcrop --help` needs none of
it.
"""

from __future__ import annotations

import typer

from outcrop.cli.compile import build, export, lint, lower, plan, store

app = typer.Typer(help="Compile a model for Inferentia2 and Trainium1.", no_args_is_help=True)
app.command()(plan.plan)
app.command()(lower.lower)
app.command()(lint.lint)
app.command()(build.build)
app.command()(export.export)
app.command(name="list")(store.list_artifacts)
app.command()(store.verify)
app.command()(store.push)
app.command()(store.pull)
