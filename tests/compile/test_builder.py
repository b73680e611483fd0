"""`outcrop compile build` over a stand-in for the compiler: what an artifact is made of, what happens when a
build is cut off or the compiler fails."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from fake_compiler import FakeCompiler, described, wrapped
from safetensors.torch import load_file
from tiny_models import LLAMA_32, tiny_model, write_gguf, write_huggingface

from outcrop_compile.artifact import Artifact, open_artifact, require_layout
from outcrop_compile.artifact.kernels import kernel_digests, kernel_names
from outcrop_compile.artifact.open_store import open_store
from outcrop_compile.builder import BuildRefused, CompilationFailed, Options, build
from outcrop_compile.checkpoint import Checkpoint, open_checkpoint
from outcrop_compile.instances import INSTANCES
from outcrop_compile.plan import Plan, PlanRequest, make_plan

OPTIONS = Options(model="llama", version="0.1.0", workers=2)
TAGS = {
    f"{kind}-{variant}-{shape}"
    for kind, shape in (("decode", "1x1-16"), ("decode", "2x1-16"), ("prefill", "1x128-16"))
    for variant in ("greedy", "sampled", "edited")
}
"""Of a model with two rows and 256 tokens."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("llama")
    (folder / "tokenizer.json").write_text("{}")
    return open_checkpoint(write_huggingface(tiny_model(LLAMA_32), folder))


def plan_of(checkpoint: Checkpoint, **changes: Any) -> Plan:
    """With few blocks, since the stand-in has them in memory."""
    request = PlanRequest(
        "llama", checkpoint.config, INSTANCES["inf2.8xlarge"],
        **({"tp": 2, "max_model_len": 256, "batch": 2, "block_size": 16} | changes),
    )  # fmt: skip
    return replace(make_plan(request), num_blocks=3 if request.slots else 24)


def make(
    checkpoint: Checkpoint,
    out: Path,
    compiler: FakeCompiler,
    options: Options = OPTIONS,
    report: Callable[[str, float], None] = lambda stage, done: None,
    **changes: Any,
) -> Artifact:
    return build(plan_of(checkpoint, **changes), checkpoint, out, compiler, options, report)


def test_an_artifact_is_whole_and_says_what_it_is(checkpoint: Checkpoint, tmp_path: Path) -> None:
    steps: list[tuple[str, float]] = []
    compiler = FakeCompiler()
    make(checkpoint, tmp_path / "out", compiler, report=lambda *step: steps.append(step))
    artifact = open_artifact(tmp_path / "out", hashes=True)
    manifest = artifact.manifest
    assert {bucket.tag for bucket in manifest.buckets} == TAGS == {tag for tag, _ in compiler.compiled}
    assert (manifest.target.tp, manifest.target.arch, manifest.sdk.release) == (2, "trn1", "2.31.1")
    assert (manifest.shapes.dtype, manifest.shapes.quantisation) == ("bfloat16", None)
    assert (manifest.shapes.num_blocks, manifest.shapes.max_rows, manifest.shapes.slot_mode) == (24, 2, False)
    assert manifest.kernels == {}
    assert [file.path for file in manifest.checkpoint] == [
        "checkpoint/config.json", "checkpoint/generation_config.json", "checkpoint/tokenizer.json",
    ]  # fmt: skip
    stages = list(dict.fromkeys(stage for stage, _ in steps))
    assert stages == ["digest", "weights", "trace", "compile", "hash"]
    for stage in stages:
        done = [fraction for name, fraction in steps if name == stage]
        assert done == sorted(done)
        assert done[-1] == pytest.approx(1.0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "buckets", "checkpoint", "manifest.json", "weights",
    ]  # fmt: skip


def test_what_was_compiled_is_in_an_artifact_once(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """No file holds another's bytes, in the folder or in a store."""
    artifact = make(checkpoint, tmp_path / "out", FakeCompiler())
    neffs = [artifact.file(bucket.neff).read_bytes() for bucket in artifact.manifest.buckets]
    store = open_store(str(tmp_path / "store"))
    store.push(tmp_path / "out")
    for root in (tmp_path / "out", tmp_path / "store"):
        files = [path.read_bytes() for path in root.rglob("*") if path.is_file()]
        assert [sum(neff in file for file in files) for neff in neffs] == [1] * len(TAGS)
    stored = sum(path.stat().st_size for path in (tmp_path / "store/objects").iterdir())
    assert stored == artifact.manifest.size()


def test_a_graph_is_what_the_manifest_says(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Its inputs in order, its outputs, the states that it replaces, and weights, which are a shard's."""
    compiler = FakeCompiler()
    compiler.unread = ("slots",)
    artifact = make(checkpoint, tmp_path / "out", compiler)
    shard = load_file(artifact.weights()[1])
    for bucket in artifact.manifest.buckets:
        graph = described(artifact.file(bucket.hlo).read_bytes())

        def told(spec: Any) -> list[Any]:
            return [list(spec.shape), f"torch.{spec.dtype}"]

        assert graph["inputs"] == {spec.name: told(spec) for spec in bucket.inputs}
        assert list(graph["inputs"]) == [spec.name for spec in bucket.inputs]
        assert graph["outputs"] == [told(spec) for spec in bucket.outputs]
        assert tuple(graph["states"]) == bucket.aliases
        assert bucket.unread == ("slots",)
        assert graph["weights"] == {name: [list(each.shape), str(each.dtype)] for name, each in shard.items()}
        assert artifact.file(bucket.neff).read_bytes() == b"NEFF of " + artifact.file(bucket.hlo).read_bytes()
        assert artifact.file(bucket.metaneff).read_text() == f"metaneff of {bucket.tag}"
    states = {spec.name: (spec.shape, spec.dtype) for spec in artifact.manifest.states}
    assert states == {
        "last_token": ((3,), "int32"),
        **{
            f"layers.{layer}.{pool}": ((25, 16, 1, 64), "bfloat16")
            for layer in range(2)
            for pool in ("key_pool", "value_pool")
        },
    }


def test_a_graph_that_the_linter_finds_wrong_is_not_compiled(checkpoint: Checkpoint, tmp_path: Path) -> None:
    compiler = FakeCompiler()
    compiler.bad = True
    with pytest.raises(BuildRefused, match=r"sort.*--unlinted"):
        make(checkpoint, tmp_path / "out", compiler)
    assert compiler.compiled == []
    make(checkpoint, tmp_path / "out", compiler, replace(OPTIONS, unlinted=True))
    assert {tag for tag, _ in compiler.compiled} == TAGS


def test_int8_graphs_read_codes_and_scales(checkpoint: Checkpoint, tmp_path: Path) -> None:
    artifact = make(checkpoint, tmp_path / "out", FakeCompiler(), dtype="int8")
    assert artifact.manifest.shapes.quantisation == "int8"
    weights = described(artifact.file(artifact.manifest.buckets[0].hlo).read_bytes())["weights"]
    assert weights["layers.0.qkv"][1] == weights["head"][1] == "torch.int8"
    assert weights["layers.1.down_scale"] == [[256, 1], "torch.float32"]
    assert weights["embed"][1] == "torch.bfloat16"


def test_slot_mode_is_the_same_graphs_with_one_block_a_row(checkpoint: Checkpoint, tmp_path: Path) -> None:
    artifact = make(checkpoint, tmp_path / "out", FakeCompiler(), slots=True)
    assert artifact.manifest.shapes.slot_mode
    assert {bucket.bucket.blocks for bucket in artifact.manifest.buckets} == {1}
    assert {spec.shape for spec in artifact.manifest.states if "pool" in spec.name} == {(4, 256, 1, 64)}


def test_speculation_adds_verify_steps(checkpoint: Checkpoint, tmp_path: Path) -> None:
    artifact = make(checkpoint, tmp_path / "out", FakeCompiler(), guesses=3)
    (one, two) = (each for each in artifact.manifest.buckets if each.tag.startswith("verify"))
    assert (one.outputs[0].shape, two.outputs[0].shape) == ((1, 4), (2, 4))


def test_kernels_are_part_of_what_an_artifact_is(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Each can be on or off, and so can the gathers that only a device can show to work."""
    plain = make(checkpoint, tmp_path / "plain", FakeCompiler()).manifest
    keys = {plain.key}
    for kernels, gather in (({"rope"}, False), ({"rope"}, True), ({"rope", "kv_cache_write"}, True)):
        options = replace(OPTIONS, kernels=frozenset(kernels), indirect_dma=gather)
        folder = tmp_path / f"{len(kernels)}-{gather}"
        manifest = make(checkpoint, folder, FakeCompiler(), options).manifest
        assert manifest.kernels == kernel_digests(kernel_names(kernels, gather=gather))
        assert len(manifest.kernels) == len(kernels)
        keys.add(manifest.key)
    assert len(keys) == 4
    assert manifest.build_command().endswith("--kernels kv_cache_write,rope --indirect-dma")


def test_kernels_that_stream_weights_get_them_inputs_first(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """In shards and graphs alike, and the manifest says so; other artifacts' keys are what they were."""
    options = replace(OPTIONS, kernels=frozenset({"swiglu_mlp"}))
    artifact = make(checkpoint, tmp_path / "out", FakeCompiler(), options)
    require_layout(artifact)
    assert artifact.manifest.shapes.weight_layout == "inputs-first"
    weights = described(artifact.file(artifact.manifest.buckets[0].hlo).read_bytes())["weights"]
    assert weights["layers.0.gate_up"][0] == [256, 768]
    assert weights["layers.1.down"][0] == [384, 256]
    plain = make(checkpoint, tmp_path / "plain", FakeCompiler()).manifest
    assert b"inputs_first" not in msgspec.json.encode(plain.shapes)
    with pytest.raises(BuildRefused, match="which has another shapes"):
        make(checkpoint, tmp_path / "out", FakeCompiler())


def test_each_kind_of_step_has_its_flags(checkpoint: Checkpoint, tmp_path: Path) -> None:
    compiler = FakeCompiler()
    artifact = make(checkpoint, tmp_path, compiler, replace(OPTIONS, flags=("--enable-fast-context-switch",)))
    flags = dict(compiler.compiled)
    for bucket in artifact.manifest.buckets:
        assert flags[bucket.tag] == bucket.flags
        assert bucket.flags[-2:] == (
            "-O1" if bucket.tag.startswith("prefill") else "-O2",
            "--enable-fast-context-switch",
        )
        assert {"--target trn1", "--auto-cast=none"} <= set(bucket.flags)


# -- again -----------------------------------------------------------------------------------------


def test_a_build_goes_on_where_it_was_cut_off(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Neither shards nor NEFFs that are there are made again."""
    failing = FakeCompiler({"prefill-edited-1x128-16": [KeyboardInterrupt()]})
    with pytest.raises(KeyboardInterrupt):
        make(checkpoint, tmp_path / "out", failing, replace(OPTIONS, workers=1))
    assert not (tmp_path / "out/manifest.json").exists()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/weights").iterdir()}
    again = FakeCompiler()
    make(checkpoint, tmp_path / "out", again)
    made = {tag for tag, _ in failing.compiled}
    assert {tag for tag, _ in again.compiled} == TAGS - made
    assert len(made) >= 6
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out/weights").iterdir()}


def test_what_a_build_of_something_else_left_is_not_used(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Its shards have the same names and other numbers."""
    failing = FakeCompiler({tag: [KeyboardInterrupt()] for tag in TAGS})
    with pytest.raises(KeyboardInterrupt):
        make(checkpoint, tmp_path / "out", failing, dtype="int8")
    artifact = make(checkpoint, tmp_path / "out", FakeCompiler())
    assert load_file(artifact.weights()[0])["layers.0.qkv"].dtype == torch.bfloat16


def test_an_artifact_that_is_there_is_not_built_again(checkpoint: Checkpoint, tmp_path: Path) -> None:
    make(checkpoint, tmp_path / "out", FakeCompiler())
    again = FakeCompiler()
    make(checkpoint, tmp_path / "out", again, replace(OPTIONS, model="under another name"))
    assert again.traced == []


@pytest.mark.parametrize(
    ("changes", "options", "field"),
    [
        ({"dtype": "int8"}, OPTIONS, "shapes"),
        ({"tp": 1}, OPTIONS, "target"),
        ({}, replace(OPTIONS, flags=("-O3",)), "buckets"),
        ({}, replace(OPTIONS, version="0.2.0"), "outcrop"),
    ],
)
def test_another_artifacts_folder_is_left_alone(
    checkpoint: Checkpoint, tmp_path: Path, changes: dict[str, Any], options: Options, field: str
) -> None:
    before = make(checkpoint, tmp_path / "out", FakeCompiler()).manifest
    with pytest.raises(BuildRefused, match=f"which has another {field}. Choose another folder"):
        make(checkpoint, tmp_path / "out", FakeCompiler(), options, **changes)
    assert open_artifact(tmp_path / "out", hashes=True).manifest == before


def test_the_same_build_has_the_same_key_wherever_it_is(checkpoint: Checkpoint, tmp_path: Path) -> None:
    one = make(checkpoint, tmp_path / "one", FakeCompiler()).manifest
    two = make(checkpoint, tmp_path / "two", FakeCompiler()).manifest
    older = make(checkpoint, tmp_path / "older", FakeCompiler(sdk="2.28.1")).manifest
    assert one.key == two.key != older.key
    assert older.sdk.release == "2.28.1"


# -- side by side ----------------------------------------------------------------------------------


def test_as_many_compile_at_the_same_time_as_are_allowed(checkpoint: Checkpoint, tmp_path: Path) -> None:
    compiler = FakeCompiler()
    compiler.hold = threading.Barrier(3, timeout=30)  # passes only when three are inside
    make(checkpoint, tmp_path, compiler, replace(OPTIONS, workers=3))
    assert compiler.most == 3


F137 = (
    "[F137] neuronx-cc was forcibly killed - This most commonly occurs due to insufficient system memory. "
    "Using a smaller data type, dimensions, batch size, or a larger instance type may help."
)


def test_what_the_kernel_killed_is_tried_again_alone(checkpoint: Checkpoint, tmp_path: Path) -> None:
    tags = ["decode-greedy-2x1-16", "prefill-sampled-1x128-16"]
    compiler = FakeCompiler({tag: [wrapped(F137)] for tag in tags})
    make(checkpoint, tmp_path / "out", compiler)
    assert [tag for tag, _ in compiler.compiled[-2:]] == tags or set(tags) == {
        tag for tag, _ in compiler.compiled[-2:]
    }
    with pytest.raises(CompilationFailed, match="--workers 1") as caught:
        make(checkpoint, tmp_path / "two", FakeCompiler({tags[0]: [wrapped(F137), wrapped(F137)]}))
    assert (caught.value.tag, caught.value.code) == (tags[0], "F137")


def test_a_failure_names_the_graph_and_the_command_that_mends_it(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    tag = "decode-sampled-1x1-16"
    compiler = FakeCompiler({tag: [wrapped("[NCC_ITEN404] Internal tensorizer error")]})
    with pytest.raises(CompilationFailed) as caught:
        make(checkpoint, tmp_path / "out", compiler)
    assert f"outcrop compile build --model llama --instance inf2.8xlarge --tp 2 --out {tmp_path}" in str(
        caught.value
    )
    assert "--slots" in str(caught.value)
    assert (caught.value.tag, caught.value.code) == (tag, "NCC_ITEN404")
    assert not (tmp_path / "out/manifest.json").exists()


def test_after_a_failure_the_running_ones_are_kept(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """And those that wait are not begun."""
    begun, failed = threading.Event(), threading.Event()

    class Ordered(FakeCompiler):
        def compile(self, traced: Any, flags: Any, folder: Path) -> Path:
            if traced.tag != "decode-greedy-1x1-16":
                begun.set()
                assert failed.wait(30)
                time.sleep(0.2)  # until the failure has been seen
                return super().compile(traced, flags, folder)
            assert begun.wait(30)
            failed.set()
            raise wrapped("[NCC_ITEN404] Internal tensorizer error")

    with pytest.raises(CompilationFailed):
        make(checkpoint, tmp_path / "out", Ordered())
    # The failed one's worker may have begun another before that was known.
    assert 1 <= len(list((tmp_path / "out/.build").glob("*.neff"))) <= 3


# -- refused ---------------------------------------------------------------------------------------


def test_an_unknown_sdk_is_refused_unless_asked_for(checkpoint: Checkpoint, tmp_path: Path) -> None:
    compiler = FakeCompiler()
    compiler.versions["neuronx-cc"] = "2.27.5334.0"
    with pytest.raises(BuildRefused, match=r"neuronx-cc 2\.27\.5334\.0.*pip install.*--unpinned"):
        make(checkpoint, tmp_path / "out", compiler)
    artifact = make(checkpoint, tmp_path / "out", compiler, replace(OPTIONS, unpinned=True))
    assert artifact.manifest.sdk.release == "unpinned"


def test_a_machine_without_the_memory_is_told(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outcrop_compile.builder.make.available_memory", lambda: 3 << 30)
    with pytest.raises(BuildRefused, match=r"takes about \d+ GiB, and this machine has 3 GiB free"):
        make(checkpoint, tmp_path / "out", FakeCompiler(), replace(OPTIONS, workers=None))
    assert not (tmp_path / "out").exists()


def test_weights_that_no_shard_has_are_a_defect(checkpoint: Checkpoint, tmp_path: Path) -> None:
    compiler = FakeCompiler()
    compiler.extra_weights = frozenset({"layers.0.rope"})
    with pytest.raises(BuildRefused, match=r"reads weights that no shard has: layers\.0\.rope"):
        make(checkpoint, tmp_path / "out", compiler)


def test_a_gguf_file_keeps_its_tokenizer_to_itself(tmp_path: Path) -> None:
    found = open_checkpoint(write_gguf(tiny_model(LLAMA_32), tmp_path / "llama.gguf"))
    artifact = make(found, tmp_path / "out", FakeCompiler(), batch=1)
    assert artifact.manifest.checkpoint == ()
