"""Lowering where torch_xla is, and what is said where it is not."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.peers.weights import config_fields
from tiny_models import LLAMA_31, tiny_model, write_huggingface
from typer.testing import CliRunner, Result

from outcrop.cli.main import app
from outcrop_compile.hlo.environment import FOLDER, LoweringFailed, find_python
from outcrop_compile.hlo.module import HloModule
from outcrop_compile.hlo.record import RecordError, read_record, record_path

CHECKOUT = Path(__file__).parents[2]
PYTHON = CHECKOUT / FOLDER / "bin" / "python"
LOWERED = CHECKOUT / "tests/compile/lowered/tp2/decode-sampled-4x1-8.hlo.pb"


def needs_xla(test: Callable[..., None]) -> Callable[..., None]:
    absent = pytest.mark.skipif(not PYTHON.exists(), reason=f"no {FOLDER}: `make xla` makes it")
    return pytest.mark.slow(pytest.mark.timeout(1800)(absent(test)))


def lower(*options: str | Path) -> Result:
    return CliRunner().invoke(app, ["compile", "lower", *map(str, options)])


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_huggingface(tiny_model(LLAMA_31), tmp_path / "model")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--dtype", "int7"), "--dtype int7"),
        (("--layers", "99"), "--layers 99: the model has 32"),
        (("--tp", "3"), "cannot be divided among 3 ranks"),
        (("--only", "encode"), "no graph is called that"),
        (("--python", "/nowhere/python"), "no such file"),
    ],
)
def test_what_is_given_wrongly(options: tuple[str, ...], words: str, tmp_path: Path) -> None:
    done = lower("--model", "Llama-3.1-8B", "--out", tmp_path, *options)
    assert done.exit_code == 2
    assert words in done.stderr


def test_without_torch_xla_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LoweringFailed, match="make xla"):
        find_python()
    done = lower("--model", "Llama-3.1-8B", "--out", tmp_path)
    assert done.exit_code == 2
    assert "torch_xla 2.9.0" in done.stderr


def test_an_interpreter_without_torch_xla_ends_in_a_line_of_its_own(tmp_path: Path) -> None:
    done = lower("--model", "Llama-3.1-8B", "--out", tmp_path, "--only", "1x1-16", "--python", sys.executable)
    assert done.exit_code == 2
    assert "torch_xla is not in this environment" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_record_survives_a_round_trip_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    record = read_record(record_path(LOWERED))
    again = tmp_path / "again.json"
    again.write_bytes(record.dump())
    assert read_record(again) == record
    again.write_text("{}")
    with pytest.raises(RecordError, match=r"again\.json: not a record"):
        read_record(again)


@needs_xla
def test_a_table_is_lowered_run_and_as_in_eager_mode(tiny: Path, tmp_path: Path) -> None:
    done = lower(
        "--model", tiny, "--out", tmp_path / "hlo", "--batch", "2", "--max-model-len", "128",
        "--dtype", "float32", "--speculative-tokens", "2", "--run", "--json", "--python", PYTHON,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    graphs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({graph["tag"] for graph in graphs}) == len(graphs) == 11
    for graph in graphs:
        assert graph["findings"] == []
        assert graph["compared"]["good"]
        assert graph["compared"]["error"] < 1e-5


@needs_xla
def test_int8_graphs_read_codes_and_compute_what_the_model_does(tiny: Path, tmp_path: Path) -> None:
    done = lower(
        "--model", tiny, "--out", tmp_path / "hlo", "--batch", "2", "--max-model-len", "128", "--tp", "2",
        "--dtype", "int8", "--run", "--json", "--python", PYTHON,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    for line in done.stdout.splitlines():
        graph = json.loads(line)
        assert graph["findings"] == []
        assert graph["compared"]["good"]
        types = {one.name: one.dtype for one in read_record(record_path(Path(graph["file"]))).parameters}
        assert types["layers.0.qkv"] == types["head"] == "int8"
        assert types["layers.1.down_scale"] == "float32"
        assert types["embed"] == "bfloat16"


@needs_xla
def test_the_graphs_that_tests_read_are_those_that_are_made(tmp_path: Path) -> None:
    """But for the lines of the model that they name."""
    record = read_record(record_path(LOWERED))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_fields(record.sizes.config)))
    out = tmp_path / "hlo"
    done = lower(
        "--model", folder, "--out", out, "--tp", "2", "--batch", "8", "--max-model-len", "256",
        "--num-blocks", "64", "--only", "decode-sampled-4x1-8", "--python", PYTHON,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    made, kept = (HloModule(path.read_bytes()) for path in (out / LOWERED.name, LOWERED))
    assert [str(one) for one in made.entry.instructions] == [str(one) for one in kept.entry.instructions]
    assert made.aliases == kept.aliases
    shutil.rmtree(out)
