"""`outcrop kernels`."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs
from typer.testing import CliRunner

from outcrop.cli.main import app
from outcrop_compile.artifact.kernels import kernel_names
from outcrop_compile.bucket import Bucket, StepKind
from outcrop_compile.graph import Graph, Variant
from outcrop_compile.hlo.record import Sizes
from outcrop_compile.kernels.calls import kernel_calls
from outcrop_compile.kernels.cost import KernelCosts, _few, _run
from outcrop_compile.shapes import SHAPES
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
    assert "swiglu_mlp               swiglu_mlp" in text
    assert "weights inputs-first" in text
    assert "SBUF, per partition" not in text


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernels_tiling_is_written_down(run: Run, kernel: str) -> None:
    """What sits in SBUF and PSUM, bytes moved, matrix work, engine times, shares of both rooflines."""
    text = run("list", kernel).stdout
    wanted = ["Tiling.", "SBUF, per partition", "PSUM", "Moved", "Matrix work", "Counted for"]
    assert [word for word in (*wanted, "272 GB/s", "HBM's 410") if word not in " ".join(text.split())] == []
    assert text.count("Tiling.") == 1


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


def sizes(kernel: str, block_size: int = 32, **changes: Any) -> Sizes:
    """Of Llama 3.1 8B at tp 8, with a kernel."""
    wanted = Sizes(
        config=SHAPES["Llama-3.1-8B"].config, dtype="bfloat16", tp=8, block_size=block_size, num_blocks=512,
        max_rows=8, max_positions=8192, kernels=(kernel,),
    )  # fmt: skip
    return structs.replace(wanted, **changes)


def decode(rows: int, blocks: int) -> Graph:
    return Graph(Bucket(StepKind.DECODE, rows, 1, blocks), Variant.SAMPLED)


def test_rows_beyond_two_groups_cost_what_the_second_did() -> None:
    """As counted when all of them are run."""
    wanted, graph = sizes("paged_decode_attention.gather"), decode(8, 64)  # two rows share the partitions
    (cost,) = KernelCosts().of(wanted, graph)
    call = _few(kernel_calls(wanted, graph)[0])
    whole = _run(call, call.tensors)
    assert cost.report.engine_seconds() == whole.engine_seconds()
    assert (cost.report.instructions, cost.report.macs) == (whole.instructions, whole.macs)
    assert cost.report.dma.hbm_read == whole.dma.hbm_read


def test_the_calls_of_a_step_are_the_models() -> None:
    """With all kernels: norms and rotations are in the projection, and matrices of bfloat16 have no codes."""
    every = kernel_names(KERNELS, gather=True)
    calls = Counter(call.entry.name for call in kernel_calls(sizes("", kernels=every), decode(4, 4)))
    assert calls == {
        "fused_qkv": 32, "kv_cache_write": 64, "paged_decode_attention": 32, "add_rmsnorm": 32,
        "swiglu_mlp": 32, "rmsnorm": 1, "topk": 2, "largest": 1,
    }  # fmt: skip
    int8 = kernel_calls(sizes("", kernels=every, dtype="int8"), decode(4, 4))
    calls = Counter(call.entry.name for call in int8)
    assert (calls["int8_dequant_matmul"], calls["rmsnorm"], calls["rope"]) == (4 * 32, 33, 64)
    assert not calls.keys() & {"fused_qkv", "swiglu_mlp"}
    long = Graph(Bucket(StepKind.PREFILL, 1, 512, 16), Variant.GREEDY)
    calls = Counter(call.entry.name for call in kernel_calls(sizes("", kernels=every), long))
    assert calls["paged_prefill_attention"] == calls["add_rmsnorm"] == 32
    assert not calls.keys() & {"fused_qkv", "swiglu_mlp", "topk"}


def test_a_bucket_that_a_contract_refuses_has_no_cost() -> None:
    """Blocks of a whole sequence."""
    for kernel in ("paged_decode_attention", "paged_prefill_attention"):
        assert list(KernelCosts().of(sizes(kernel, block_size=8192), decode(2, 1))) == []
