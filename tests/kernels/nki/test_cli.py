"""`outcrop kernels`."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from outcrop.cli.main import app
from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.kernels.cost import KernelShapes
from outcrop_compile.shapes import SHAPES
from outcrop_compile.tensor_parallel import divide
from outcrop_kernels.nki import language
from outcrop_kernels.nki.catalogue import KERNELS

Run = Callable[..., Any]


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: str, status: int = 0) -> Any:
        result = CliRunner().invoke(app, ["kernels", *arguments])
        assert result.exit_code == status, result.output
        return result

    return invoke


def test_list_says_what_there_is_and_what_has_been_shown(run: Run) -> None:
    found = json.loads(run("list", "--json").stdout)
    assert [one["name"] for one in found] == list(KERNELS)
    assert all(one["verified"]["device"] == "not yet run on a device" for one in found)
    text = run("list").stdout
    assert "rope: x [T, H, D]; cos [T, E] float32; sin [T, E] float32; E half of D" in text
    assert "swiglu_mlp               called by no graph yet" in text


def test_check_compares_with_the_reference(run: Run) -> None:
    found = json.loads(run("check", "kv_cache_write", "--direct-dma", "--json").stdout)
    assert len(found) == 32
    assert all(one["good"] and one["error"] == 0 for one in found)


def test_profile_counts_what_a_step_moves(run: Run) -> None:
    """Keys and values of 2 rows of 128 tokens at tp 8, once, in each of 32 layers."""
    options = ("--tp", "8", "--rows", "2", "--context", "128", "--json")
    found = json.loads(run("profile", "paged_decode_attention", *options).stdout)
    assert [one["kernel"] for one in found] == ["paged_decode_attention"]
    kv = 32 * 2 * 128 * 2 * 128 * 2
    assert kv < found[0]["step_bytes"] < 1.1 * kv
    assert found[0]["calls"] == 32
    assert found[0]["seconds"] == max(found[0]["engine_seconds"].values())
    assert "decides" in run("profile", "rope", "--rows", "1").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "nonsense"), "there is no kernel nonsense; there are kv_cache_write"),
        (("profile", "rope", "--model", "Llama-9"), "Llama-9"),
        (("table", "--python", "/nowhere/python"), "/nowhere/python: no such file"),
    ],
)
def test_what_cannot_be_is_told(run: Run, arguments: tuple[str, ...], words: str) -> None:
    assert words in " ".join(run(*arguments, status=2).output.split())


@pytest.mark.parametrize("command", ["check", "profile", "table"])
def test_kernels_of_an_installed_sdk_are_not_simulated(
    run: Run, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language, "SIMULATED", False)
    assert "set OUTCROP_NKI=simulator" in " ".join(run(command, status=2).output.split())


def test_rows_beyond_two_groups_cost_what_the_second_did() -> None:
    """As counted when all of them are run."""
    layout = divide(SHAPES["Llama-3.1-8B"].config, 8)
    shapes = KernelShapes(layout, 32, torch.bfloat16, gather=True)
    bucket = Bucket(StepKind.DECODE, 8, 1, 64)  # two rows share the partitions
    (cost,) = shapes.costs(bucket, ["paged_decode_attention"])
    whole = shapes._attention("paged_decode_attention", 8, bucket)
    assert cost.report.engine_seconds() == whole.engine_seconds()
    assert (cost.report.instructions, cost.report.macs) == (whole.instructions, whole.macs)
    assert cost.report.dma.hbm_read == whole.dma.hbm_read


def test_a_bucket_that_a_contract_refuses_has_no_cost() -> None:
    layout = divide(SHAPES["Llama-3.1-8B"].config, 8)
    shapes = KernelShapes(layout, 8192, torch.bfloat16, gather=True)
    slots = Bucket(StepKind.DECODE, 2, 1, 1)  # blocks of a whole sequence
    assert list(shapes.costs(slots, ["paged_decode_attention", "paged_prefill_attention"])) == []
