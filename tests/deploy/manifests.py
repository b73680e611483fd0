"""What the manifests of deploy/ say of Outcrop, checked against Outcrop."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import typer.main
import yaml

from outcrop.cli.main import app
from outcrop.settings import CONFIG_VARIABLE, MASTER_SECRET_VARIABLE, Settings, load_settings
from outcrop_compile.artifact.manifest import CHECKPOINT

DEPLOY = Path(__file__).parents[2] / "deploy"


def documents(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def strings(value: object) -> Iterator[str]:
    """Every text in a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for pair in value.items() for part in pair for text in strings(part))
    elif isinstance(value, Sequence):
        yield from (text for each in value for text in strings(each))


def check_command(arguments: Sequence[str]) -> None:
    """Fails where a command or an option is not there."""
    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands"):
        name = rest.pop(0)
        assert name in command.commands, f"there is no outcrop {name}"
        command = command.commands[name]
    options = {option for each in command.params for option in each.opts}
    unknown = {each for each in rest if each.startswith("--")} - options
    assert not unknown, f"outcrop {command.name} has no {unknown}"


def check_variables(names: Sequence[str]) -> None:
    """Fails where one that is Outcrop's is not read by it."""
    known = {
        CONFIG_VARIABLE,
        MASTER_SECRET_VARIABLE,
        *(f"OUTCROP_{name}".upper() for name in Settings.model_fields),
    }
    assert {name for name in names if name.startswith("OUTCROP_")} <= known


def extras(path: Path) -> list[str]:
    """Of the package, as a file has them installed."""
    (found,) = re.findall(r'"(?:\.|outcrop)\[([\w,]+)\]', path.read_text())
    return str(found).split(",")


def settings_of(text: str, folder: Path, **variables: str) -> Settings:
    """The settings of an outcrop.toml, in a place where its files and folders are there."""
    for model in tomllib.loads(text)["models"]:
        for place in filter(None, map(model.get, ("path", "artifact"))):
            there = folder / place.lstrip("/")
            (there / CHECKPOINT).mkdir(parents=True, exist_ok=True)
            text = text.replace(f'"{place}"', f'"{there}"')
    config = folder / "outcrop.toml"
    config.write_text(text)
    others = {name: value for name, value in os.environ.items() if not name.startswith("OUTCROP_")}
    with patch.dict(os.environ, others | variables, clear=True):
        return load_settings(config=config)


def require(program: str, package: str) -> str:
    """The path of a program, or a skipped test that says where it comes from."""
    found = shutil.which(program, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{program} is not installed; it comes with {package}")
    return found
