"""The `outcrop` command as a user meets it: help that can be read, and mistakes answered in a line."""

from __future__ import annotations

import io
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError
from demo import PATH
from serving import COMMAND, PATIENCE, Served, environment, serving
from typer.testing import CliRunner

from outcrop import __version__
from outcrop.cli.display import Display
from outcrop.cli.main import app
from outcrop.settings import AuthSettings, ModelSettings, Settings

NOT_OPTIONS = {
    "aliases", "name", "block_size", "depth", "prefix_cache", "weight_cache_size", "fake_step_ms",
    "fake_poison", "adapters", "storage", "jobs", "cost", "telemetry", "sagemaker",
}  # fmt: skip
"""Settings that only a configuration file has."""


Done = subprocess.CompletedProcess[str]


def outcrop(*arguments: str, **variables: str) -> Done:
    """The command, in a process of its own."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(**variables),
    )


def here(*arguments: str, **variables: str) -> Done:
    """The same in this process: for what is over before a server is imported."""
    cleared = {name: None for name in os.environ if name.startswith("OUTCROP_")}
    result = CliRunner(env=cleared | variables).invoke(app, arguments, prog_name="outcrop")
    return Done(arguments, result.exit_code, result.stdout, result.stderr)


def refused(*arguments: str, status: int = 1, **variables: str) -> str:
    """What `outcrop serve` says when it cannot: one line, and nothing else. status: 2 where its settings are
    wrong."""
    done = (here if status == 2 else outcrop)("serve", *arguments, **variables)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("outcrop: ")
    return line.removeprefix("outcrop: ")


# -- help ------------------------------------------------------------------------------------------


def test_version() -> None:
    done = outcrop("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"outcrop {__version__}\n", "")


def help_of(*command: str, columns: int) -> str:
    done = here(*command, "--help", COLUMNS=str(columns), TERM="dumb", NO_COLOR="1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert all(len(line.rstrip()) <= columns for line in lines)
    assert "…" not in done.stdout  # nothing had to be cut off
    return done.stdout


@pytest.mark.parametrize("columns", [80, 120])
def test_help(columns: int) -> None:
    text = help_of(columns=columns)
    assert "Usage: outcrop [OPTIONS] COMMAND" in text
    assert re.search(r"serve +Serve a model until Ctrl-C or SIGTERM\.", text)
    assert "--version" in text


def test_no_arguments_show_the_help() -> None:
    done = outcrop()
    assert "Usage: outcrop [OPTIONS] COMMAND" in done.stdout + done.stderr


@pytest.mark.parametrize("columns", [80, 120])
def test_help_of_serve(columns: int) -> None:
    text = help_of("serve", columns=columns)
    assert "Usage: outcrop serve [OPTIONS]" in text
    assert "For example: outcrop serve --model ./Llama-3.1-8B-Instruct --kv-memory 4G" in text
    assert "[[models]]" in text
    assert "OUTCROP_PORT" in text


def test_every_setting_is_an_option_with_its_default() -> None:
    text = re.sub(r"[│\s]+", " ", help_of("serve", columns=200))
    explained = dict(re.findall(r"--([a-z-]+) (.*?)(?= --[a-z]|$)", text.split("Model ─")[1]))
    fields: dict[str, Any] = ModelSettings.model_fields | Settings.model_fields
    names = set(fields) - NOT_OPTIONS - {"path", "models"}
    assert set(explained) == {name.replace("_", "-") for name in names} | {"model", "config"}
    for name in names - {"kv_memory", "weight_cache", "id", "auth", "state", "engine_args"}:
        default = fields[name].default
        if default not in (None, False, ""):
            shown = f"{default:g}" if isinstance(default, float) else str(default)
            assert f"(default: {shown})" in explained[name.replace("_", "-")]
    assert "(default: ~/.cache/outcrop)" in explained["weight-cache"]
    assert "(default: ~/.local/state/outcrop/state.db)" in explained["state"]
    assert f"(default: {AuthSettings().mode})" in explained["auth"]
    assert f"(default: {fields['kv_memory'].default >> 20}M)" in explained["kv-memory"]


# -- mistakes --------------------------------------------------------------------------------------


def test_what_is_no_option_or_command() -> None:
    for run, *arguments in ((here, "serve", "--bogus"), (outcrop, "bogus")):
        done = run(*arguments)
        assert done.returncode == 2
        assert "No such" in done.stderr
        assert "outcrop" in done.stderr
        assert "Traceback" not in done.stderr


def test_no_model() -> None:
    assert refused(status=2).startswith("no model: give --model PATH")


def test_wrong_settings_are_told_together() -> None:
    done = here("serve", "--model", "nowhere", "--kv-memory", "lots", "--max-rows", "x", OUTCROP_PORT="y")
    assert done.returncode == 2
    told = done.stderr.splitlines()
    assert [line.split(": ")[:2] for line in told] == [
        ["outcrop", name] for name in ("--model", "--kv-memory", "--max-rows", "OUTCROP_PORT")
    ]


def test_a_wrong_path() -> None:
    for backend in ("cpu", "fake"):
        said = refused("--model", "no/where", "--backend", backend, status=2)
        assert said == "--model: no/where: there is no such file or folder"


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert (
        refused("--config", str(missing), status=2) == f"configuration file {missing}: there is no such file"
    )
    broken = tmp_path / "broken.toml"
    broken.write_text("port = \n")
    said = refused(status=2, OUTCROP_CONFIG=str(broken))
    assert said.startswith(f"configuration file {broken}: ")
    assert "line 1" in said


def test_a_checkpoint_without_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert refused("--model", str(tmp_path)).startswith(f"{tmp_path}: no tokenizer found. Supported: ")


def test_a_damaged_checkpoint(tmp_path: Path) -> None:
    damaged = tmp_path / "cut.gguf"
    with PATH.open("rb") as whole:
        damaged.write_bytes(whole.read(30_000_000))
    assert refused("--model", str(damaged)).startswith(f"{damaged}: truncated")


def test_memory_for_too_little_context() -> None:
    assert refused("--model", str(PATH), "--kv-memory", "1M", "--port", "0", "--dtype", "float32") == (
        "kv_memory 1 MiB holds 0 tokens, fewer than one block of 32: give at least 2 MiB"
    )


def test_an_address_that_cannot_be_had() -> None:
    model = ("--model", str(PATH), "--backend", "fake")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(*model, "--port", str(port))
    assert said == f"cannot listen on 127.0.0.1, port {port}: Address already in use"
    assert refused(*model, "--host", "192.0.2.1", "--port", "0").startswith(
        "cannot listen on 192.0.2.1, port 0: "
    )


# -- what a running server shows -------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def load(display: Display) -> None:
    for stage in ("weights", "warm-up"):
        for step in range(1001):
            display.progress(0, stage, step / 1000)


def test_progress_on_a_terminal_is_a_line_for_each_stage() -> None:
    terminal = Terminal()
    load(Display(terminal))
    lines = terminal.getvalue().splitlines(keepends=True)
    drawn = terminal.getvalue().split("\r")
    assert terminal.getvalue().count("\n") == 2
    assert 50 < len(drawn) < 110
    assert drawn[1].startswith("weights")
    assert "  0%" in drawn[1]
    assert lines[-1].endswith(f"[{'#' * 30}]\n")


def test_progress_in_a_log_is_a_few_lines() -> None:
    log = io.StringIO()
    load(Display(log))
    lines = log.getvalue().splitlines()
    assert [line.split()[:2] for line in lines] == [
        [stage, fraction] for stage in ("weights", "warm-up") for fraction in ("0%", "50%", "100%")
    ]


def test_progress_of_two_models_is_told_apart() -> None:
    terminal = Terminal()
    display = Display(terminal, ["a", "b"])
    for fraction in (0.0, 0.1, 0.6, 0.7, 1.0):
        display.progress(0, "weights", fraction)
        display.progress(1, "weights", fraction)
    assert "\r" not in terminal.getvalue()
    assert [line.split()[:3:2] for line in terminal.getvalue().splitlines()] == [
        [label, fraction] for fraction in ("0%", "60%", "100%") for label in ("a:", "b:")
    ]


# -- a server of two models ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A configuration of two models, with names of its own and Bedrock's."""
    folder = tmp_path_factory.mktemp("two")
    config = folder / "models.toml"
    config.write_text(
        f"""
        region = "eu-west-1"
        [[models]]
        path = "{PATH}"
        backend = "fake"
        id = "meta.llama3-8b-instruct-v1:0"
        aliases = ["small", "default"]
        max_model_len = 256
        [[models]]
        path = "{PATH}"
        backend = "fake"
        id = "acme.house-model-v2:0"
        aliases = ["large"]
        name = "House model"
        max_model_len = 4096
        """
    )
    with serving(folder, "--config", str(config)) as served:
        yield served


def converse(server: Served, model: str, **config: Any) -> dict[str, Any]:
    with closing(server.client(parameter_validation=False)) as client:
        return client.converse(
            modelId=model,
            messages=[{"role": "user", "content": [{"text": "Hi"}]}],
            inferenceConfig={"temperature": 0} | config,
        )


@pytest.mark.parametrize(
    ("model", "context"),
    [
        ("meta.llama3-8b-instruct-v1:0", 256),
        ("small", 256),
        ("default", 256),
        ("us.meta.llama3-8b-instruct-v1:0", 256),
        ("arn:aws:bedrock:us-east-1::foundation-model/meta.llama3-8b-instruct-v1:0", 256),
        ("acme.house-model-v2:0", 4096),
        ("large", 4096),
    ],
)
def test_two_models_by_all_their_names(two: Served, model: str, context: int) -> None:
    assert converse(two, model, maxTokens=5)["usage"]["outputTokens"] == 5
    with pytest.raises(ClientError, match=f"exceeds the model limit of {context}"):
        converse(two, model, maxTokens=5000)


@pytest.mark.parametrize("model", ["meta.llama3-70b-instruct-v1:0", "medium", "acme.house-model-v1:0"])
def test_a_name_that_no_model_has(two: Served, model: str) -> None:
    with pytest.raises(ClientError) as caught:
        converse(two, model)
    assert caught.value.response["Error"] == {
        "Code": "ValidationException",
        "Message": "The provided model identifier is invalid.",
    }


def test_exactly_the_two_models_are_listed(two: Served) -> None:
    with closing(two.client("bedrock")) as control:
        listed = control.list_foundation_models()["modelSummaries"]
    assert {model["modelId"]: model["modelName"] for model in listed} == {
        "meta.llama3-8b-instruct-v1:0": PATH.stem,
        "acme.house-model-v2:0": "House model",
    }
    assert all(model["modelArn"].startswith("arn:aws:bedrock:eu-west-1::") for model in listed)


def test_each_model_has_its_engine(two: Served) -> None:
    assert len(two.engines()) == 2
    health = httpx.get(f"{two.url}/health/ready").json()
    assert health["models"] == {"meta.llama3-8b-instruct-v1:0": "ready", "acme.house-model-v2:0": "ready"}
    assert "acme.house-model-v2:0: warm-up" in two.output
