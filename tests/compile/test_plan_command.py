"""`outcrop compile plan` as a person and a program meet it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from serving import environment
from tiny_models import LLAMA_32, tiny_model, write_gguf, write_huggingface
from typer.testing import CliRunner, Result

from outcrop.cli.main import app
from outcrop_compile.instances import INSTANCES
from outcrop_compile.plan import PlanRequest, make_plan
from outcrop_compile.shapes import SHAPES


def plan(*options: str, columns: int = 80) -> Result:
    return CliRunner().invoke(app, ["compile", "plan", *options], env={"COLUMNS": str(columns)})


@pytest.mark.parametrize(
    "options",
    [
        ("--model", "Llama-3.1-8B", "--instance", "inf2.8xlarge"),
        ("--model", "Llama-3.3-70B", "--instance", "inf2.48xlarge", "--max-model-len", "32768"),
        ("--model", "Llama-3.1-8B", "--instance", "inf2.48xlarge", "--max-model-len", "131072",
         "--batch", "8", "--speculative-tokens", "3"),
    ],
)  # fmt: skip
def test_the_tables_are_whole_on_80_columns(options: tuple[str, ...]) -> None:
    done = plan(*options)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in done.stdout
    # No cell is broken: each of a table's rows begins with its size.
    for line in lines:
        if line.startswith("│"):
            assert re.match(r"│ \S", line), line
    assert "nothing has yet run on a device" in " ".join(done.stdout.split())


def test_json_is_the_plan() -> None:
    done = plan("--model", "us.meta.llama3-1-8b-instruct-v1:0", "--instance", "inf2.48xlarge", "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    wanted = make_plan(PlanRequest("", SHAPES["Llama-3.1-8B"].config, INSTANCES["inf2.48xlarge"]))
    assert (found["model"], found["tp"], found["replicas"]) == ("Llama-3.1-8B", 8, 3)
    assert found["kv"]["tokens"] == wanted.kv_tokens
    memory = found["hbm_per_core"]
    assert memory.pop("total") == sum(memory.values()) == 16 << 30
    assert len(found["buckets"]) == len(wanted.buckets)
    first = found["buckets"][0]
    assert first == {
        "kind": "decode", "rows": 1, "width": 1, "blocks": 16, "context": 512, "seconds": first["seconds"]
    }  # fmt: skip
    assert first["seconds"]["hbm"] == pytest.approx(wanted.buckets[0].time.hbm)


def test_a_refusal_says_what_would_fit_and_that_does() -> None:
    done = plan("--model", "Llama-3.3-70B", "--instance", "inf2.8xlarge")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "of a core's 16 GiB, weights take 65.7" in done.stderr
    *_, last = done.stderr.splitlines()
    assert last == "  --instance inf2.48xlarge"
    assert plan("--model", "Llama-3.3-70B", *last.split()).exit_code == 0


def test_a_refusal_in_json() -> None:
    done = plan("--model", "Llama-3.1-8B", "--instance", "inf2.8xlarge", "--slots", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert (found["limit"], found["suggestions"][0]) == ("batch", "--batch 12")


def test_a_reserve_that_leaves_nothing() -> None:
    done = plan("--model", "Llama-3.1-8B", "--instance", "inf2.8xlarge", "--reserve", "16G")
    assert "None of the instances" in done.stderr


def test_checkpoints(tmp_path: Path) -> None:
    """A folder, its configuration alone, and a GGUF file: the same shape, so the same plan."""
    model = tiny_model(LLAMA_32)
    folder = write_huggingface(model, tmp_path / "whole")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_bytes((folder / "config.json").read_bytes())
    file = write_gguf(model, tmp_path / "model.gguf")
    found = []
    for path in (folder, tmp_path / "bare", file):
        done = plan("--model", str(path), "--instance", "inf2.xlarge", "--json")
        assert done.exit_code == 0, done.output
        found.append(json.loads(done.stdout))
        assert found[-1].pop("model") == path.name
        del found[-1]["config"]["rms_norm_eps"]  # float32 in GGUF
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--model", "Llama-31-8B", "--instance", "inf2.xlarge"), "did you mean Llama-3.1-8B?"),
        (("--model", "nothing/like/it", "--instance", "inf2.xlarge"), "neither a checkpoint nor"),
        (("--model", "Llama-3.1-8B", "--instance", "p5.48xlarge"), "there are inf2.xlarge, trn1.2xlarge"),
        (
            ("--model", "Llama-3.1-8B", "--instance", "inf2.xlarge", "--dtype", "fp8"),
            "--dtype fp8: there are",
        ),
        (("--model", "Llama-3.1-8B", "--instance", "inf2.xlarge", "--reserve", "much"), "--reserve: 'much'"),
        (("--model", "Llama-3.1-8B", "--instance", "inf2.xlarge", "--batch", "0"), "batch is 0"),
        (
            ("--model", "Llama-3.1-8B", "--instance", "inf2.xlarge", "--batch", "x"),
            "Invalid value for '--batch'",
        ),
    ],
)
def test_mistakes(options: tuple[str, ...], words: str) -> None:
    done = plan(*options)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.split())


def test_neither_command_needs_torch() -> None:
    """Which takes a second to import, and is not there where nothing but planning is done."""
    for arguments in (
        ["compile", "plan", "--model", "Llama-3.1-8B", "--instance", "inf2.8xlarge"],
        ["doctor"],
    ):
        program = (
            "import sys; from outcrop.cli.main import app; app(sys.argv[1:], standalone_mode=False); "
            "sys.exit('torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", program, *arguments], env=environment(), check=False)
        assert done.returncode == 0


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    done = plan("--model", str(tmp_path), "--instance", "inf2.xlarge")
    assert done.exit_code == 2
    assert "no checkpoint here" in done.stderr
