"""`outcrop compile list | verify | push | pull`: artifacts, checked and moved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outcrop.cli.compile.progress import failing, reporting
from outcrop.cli.serve import fail

if TYPE_CHECKING:
    from outcrop_compile.artifact.manifest import Manifest
    from outcrop_compile.optimum_neuron.exported import Exported

Where = Annotated[
    str,
    typer.Option("--store", metavar="STORE", help="A directory, or s3://bucket/prefix."),
]
Endpoint = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Of an S3 that is not Amazon's (default: AWS_ENDPOINT_URL_S3)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def list_artifacts(store: Where, endpoint_url: Endpoint = None, as_json: Json = False) -> None:
    """Show the artifacts of a store. Of a directory, also what optimum-neuron has exported: itself, or
    folders in it."""
    from outcrop_compile.artifact.open_store import open_store
    from outcrop_compile.optimum_neuron.exported import exported_below

    with failing():
        opened = open_store(store, endpoint=endpoint_url)
        exported, strange = exported_below(Path(store).expanduser()) if "://" not in store else ([], [])
        found, damaged = opened.artifacts()
    wrong = [*damaged, *strange]
    rows = [_row(manifest) for manifest in found] + [_exported_row(each) for each in exported]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif rows:
        cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for line in cells:
            typer.echo("  ".join(map(str.ljust, line, widths)).rstrip())
    elif not wrong:
        typer.echo(f"{store} holds no artifacts; put one there with: outcrop compile push ARTIFACT")
    if wrong:
        fail("\n".join(map(str, wrong)))


def verify(
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="Its folder, or a key with --store.")],
    store: Annotated[
        str | None,
        typer.Option(metavar="STORE", help="Where the key is: a directory, or s3://bucket/prefix."),
    ] = None,
    endpoint_url: Endpoint = None,
) -> None:
    """Read all of an artifact and check it against its manifest."""
    from outcrop_compile.artifact.open import open_artifact
    from outcrop_compile.artifact.open_store import open_store

    with failing(), reporting() as report:
        if store is None:
            manifest = open_artifact(Path(artifact), hashes=True, progress=report).manifest
        else:
            manifest = open_store(store, endpoint=endpoint_url).verify(artifact, progress=report)
    typer.echo(f"{_described(manifest)} is whole")


def push(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="Its folder.")],
    store: Where,
    force: Annotated[
        bool, typer.Option("--force", help="Write also what the store has, to mend damaged objects.")
    ] = False,
    endpoint_url: Endpoint = None,
) -> None:
    """Check an artifact and put it into a store. Cut off, run it again: it goes on with what is missing."""
    from outcrop_compile.artifact.open_store import open_store

    with failing(), reporting() as report:
        manifest = open_store(store, endpoint=endpoint_url).push(artifact, force=force, progress=report)
    typer.echo(f"{_described(manifest)} is in {store}; get it with:")
    typer.echo(f"outcrop compile pull {manifest.key[:12]} --store {store}")


def pull(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The artifact's key, or its first digits.")],
    store: Where,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to (default: artifacts/KEY here).")
    ] = None,
    endpoint_url: Endpoint = None,
) -> None:
    """Get an artifact out of a store, checking every byte. Cut off, run it again: it goes on with what is
    missing; in a damaged folder, it mends."""
    from outcrop_compile.artifact.open_store import open_store

    with failing(), reporting() as report:
        chosen = open_store(store, endpoint=endpoint_url)
        folder = out or Path("artifacts") / chosen.find(key).key[:12]
        artifact = chosen.pull(key, folder, progress=report)
    typer.echo(f"{_described(artifact.manifest)} is in {folder}")


def _row(manifest: Manifest) -> dict[str, Any]:
    shapes = manifest.shapes
    return {
        "key": manifest.key[:12],
        "model": manifest.model.name,
        "instance": manifest.target.instance,
        "tp": manifest.target.tp,
        "dtype": shapes.quantisation or shapes.dtype,
        "max_model_len": shapes.max_model_len,
        "rows": shapes.max_rows,
        "buckets": len(manifest.buckets),
        "sdk": manifest.sdk.release,
        "gib": round(manifest.size() / 2**30, 1),
    }


def _exported_row(exported: Exported) -> dict[str, Any]:
    return {
        "key": exported.folder.resolve().name,
        "model": exported.model,
        "instance": exported.target,
        "tp": exported.tp,
        "dtype": exported.dtype,
        "max_model_len": exported.length,
        "rows": exported.batch,
        "buckets": len(exported.graphs) + len(exported.neffs),
        "sdk": f"optimum-neuron {exported.optimum_neuron}, neuronx-cc {exported.neuronx_cc}",
        "gib": round(exported.size / 2**30, 1),
    }


def _described(manifest: Manifest) -> str:
    return (
        f"{manifest.key[:12]} ({manifest.model.name}, tp {manifest.target.tp}, {manifest.size() >> 20} MiB)"
    )
