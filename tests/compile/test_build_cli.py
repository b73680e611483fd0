"""`outcrop compile build` as a person meets it."""

from pathlib import Path

import pytest
from fake_compiler import FakeCompiler, wrapped
from tiny_models import LLAMA_32, tiny_model, write_huggingface
from typer.testing import CliRunner, Result

from outcrop.cli.main import app
from outcrop_compile import builder
from outcrop_compile.artifact import open_artifact

SMALL = ("--max-model-len", "64", "--batch", "1", "--block-size", "16", "--tp", "1", "--reserve", "16250M")
"""Leaves the KV cache some megabytes, since the stand-in has it in memory."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_huggingface(tiny_model(LLAMA_32), tmp_path_factory.mktemp("llama"))


def outcrop(*words: object) -> Result:
    return CliRunner().invoke(app, ["compile", "build", *map(str, words)])


def test_it_builds_and_says_what_comes_next(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "NxdCompiler", FakeCompiler)
    out = tmp_path / "out"
    words = ("--model", checkpoint, "--instance", "inf2.8xlarge", "--out", out, "--workers", "1", *SMALL)
    result = outcrop(*words, "--compiler-flags", "--enable-fast-context-switch")
    assert result.exit_code == 0, result.output
    assert f"outcrop serve --backend neuron --artifact {out}" in result.stdout
    assert "compile  100%" in result.stderr
    manifest = open_artifact(out, hashes=True).manifest
    assert manifest.key[:12] in result.stdout
    assert manifest.buckets[0].flags[-1] == "--enable-fast-context-switch"


def test_a_failed_compilation_is_told_with_its_mend(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = FakeCompiler({"decode-greedy-1x1-4": [wrapped("[NCC_ITEN404] Internal tensorizer error")]})
    monkeypatch.setattr(builder, "NxdCompiler", lambda: failing)
    words = ("--model", checkpoint, "--instance", "inf2.8xlarge", "--out", tmp_path / "out", "--workers", "1")
    result = outcrop(*words, *SMALL)
    assert result.exit_code == 2
    first = next(line for line in result.stderr.splitlines() if line.startswith("outcrop:"))
    assert "this compiler cannot do paged attention (NCC_ITEN404)" in first
    assert "--slots" in first


def test_without_the_sdk_it_says_how_to_get_it(checkpoint: Path, tmp_path: Path) -> None:
    result = outcrop(
        "--model", checkpoint, "--instance", "inf2.8xlarge", "--out", tmp_path / "out", "--tp", 1
    )
    assert result.exit_code == 2
    assert "pip install --extra-index-url https://pip.repos.neuron.amazonaws.com" in result.stderr
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused_with_what_does(tmp_path: Path) -> None:
    result = outcrop("--model", "Llama-3.1-70B", "--instance", "inf2.xlarge", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "--instance inf2.48xlarge" in result.output


def test_a_name_has_no_weights(tmp_path: Path) -> None:
    result = outcrop("--model", "Llama-3.2-1B", "--instance", "inf2.xlarge", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "Llama-3.2-1B: no such file or directory" in result.stderr
