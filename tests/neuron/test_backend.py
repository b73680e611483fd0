"""The Neuron backend over a stand-in for its runtime: what it gives the device, and what each of the device's
codes leads to."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fake_neuron import CpuDevice, FakeRuntime, Fault, NrtError, read_shard
from neuron_artifact import SHAPES, device_buckets, manifest_of, write_artifact

from outcrop.backends.base import DeviceFailure, blank_step
from outcrop.backends.neuron.backend import NeuronBackend
from outcrop.backends.neuron.nrt import STATUSES, UNKNOWN, Effect, drain_of, status_of
from outcrop.engine.core import EngineCore
from outcrop.engine.messages import FinishReason, GenerationRequest, SamplingParams
from outcrop.engine.policy import Interleave
from outcrop_compile.artifact import Artifact, ArtifactMismatch, Manifest, open_artifact
from outcrop_compile.bucket import Bucket, StepKind

REQUESTS = [
    GenerationRequest("greedy", [5, 9, 3], SamplingParams(12)),
    GenerationRequest("sampled", [7, 2, 8, 8], SamplingParams(12, temperature=0.8, top_p=0.9, seed=4)),
    GenerationRequest("edited", [1, 2, 3], SamplingParams(12, repetition_penalty=1.3)),
]


@pytest.fixture(scope="module")
def opened(artifact: Path) -> Artifact:
    return open_artifact(artifact)


@pytest.fixture
def device(opened: Artifact) -> Iterator[CpuDevice]:
    device = CpuDevice(opened.manifest, [read_shard(path) for path in opened.weights()])
    yield device
    device.close()


@pytest.fixture
def backend(opened: Artifact, device: CpuDevice) -> NeuronBackend:
    return NeuronBackend(FakeRuntime(device), opened.manifest, depth=2)


@pytest.fixture(scope="module")
def undisturbed(opened: Artifact) -> dict[str, list[int]]:
    device = CpuDevice(opened.manifest, [read_shard(path) for path in opened.weights()])
    tokens, finish = run(
        EngineCore(NeuronBackend(FakeRuntime(device), opened.manifest, depth=1), Interleave())
    )
    device.close()
    assert set(finish.values()) == {FinishReason.LENGTH}
    return tokens


def run(
    core: EngineCore, requests: list[GenerationRequest] = REQUESTS
) -> tuple[dict[str, list[int]], dict[str, FinishReason]]:
    tokens: dict[str, list[int]] = {request.request_id: [] for request in requests}
    finish: dict[str, FinishReason] = {}
    for request in requests:
        core.add(request)
    while not core.idle:
        for delta in core.step():
            tokens[delta.request_id] += delta.tokens
            if delta.finish is not None:
                finish[delta.request_id] = delta.finish
    return tokens, finish


def test_each_step_runs_in_the_graph_that_does_no_more_than_it_wants(
    backend: NeuronBackend, device: CpuDevice, undisturbed: dict[str, list[int]]
) -> None:
    for request in REQUESTS:
        before = len(device.calls)
        tokens, _ = run(EngineCore(backend, Interleave()), [request])
        assert tokens[request.request_id] == undisturbed[request.request_id]
        assert {tag.split("-")[1] for tag in device.calls[before:]} == {request.request_id}


def test_two_steps_are_with_the_device_at_a_time(backend: NeuronBackend, device: CpuDevice) -> None:
    run(EngineCore(backend, Interleave()), REQUESTS[:2])
    assert device.most_outstanding == 2


def test_two_ranks_give_the_answers_of_one(
    checkpoint: Path, tmp_path: Path, undisturbed: dict[str, list[int]]
) -> None:
    manifest = write_artifact(tmp_path / "tp2", checkpoint, tp=2)
    opened = open_artifact(tmp_path / "tp2")
    device = CpuDevice(manifest, [read_shard(path) for path in opened.weights()])
    tokens, _ = run(EngineCore(NeuronBackend(FakeRuntime(device), manifest, depth=2), Interleave()))
    device.close()
    assert tokens == undisturbed


def test_warming_up_runs_every_graph_once_and_forbids_compilation(
    backend: NeuronBackend, device: CpuDevice, opened: Artifact
) -> None:
    told: list[float] = []
    backend.warmup(lambda stage, fraction: told.append(fraction))
    assert sorted(device.calls) == sorted(graph.tag for graph in opened.manifest.buckets)
    assert told[-1] == 1.0
    assert backend.runtime.sealed


def test_a_graph_that_does_not_run_ends_the_start_with_advice(
    backend: NeuronBackend, device: CpuDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(tag: str, inputs: object) -> None:
        raise NrtError(4)

    monkeypatch.setattr(device, "execute", execute)
    with pytest.raises(
        DeviceFailure, match=r"decode-greedy.* does not run: NRT_RESOURCE.*outcrop compile plan"
    ):
        backend.warmup(lambda stage, fraction: None)


def test_a_compilation_after_warm_up_fails_its_step_and_is_counted(
    backend: NeuronBackend, device: CpuDevice
) -> None:
    backend.warmup(lambda stage, fraction: None)
    backend.runtime.compile_at = len(device.calls) + 3
    core = EngineCore(backend, Interleave())
    _, finish = run(core, [REQUESTS[0]])
    assert finish == {"greedy": FinishReason.ERROR}
    assert core.stats().compiles_after_warmup == 1
    _, finish = run(core, [REQUESTS[0]])
    assert finish == {"greedy": FinishReason.LENGTH}


@pytest.mark.parametrize("code", sorted(STATUSES))
def test_what_each_code_leads_to(
    backend: NeuronBackend, device: CpuDevice, undisturbed: dict[str, list[int]], code: int
) -> None:
    """One step of three requests fails with it."""
    status = STATUSES[code]
    when = "execute" if status.effect in (Effect.RETRY, Effect.FAIL_STEP) else "wait"
    device.faults.coming.append(Fault(code, at=4, when=when))
    core = EngineCore(backend, Interleave())
    if status.effect in (Effect.RESTART, Effect.DRAIN):
        with pytest.raises(DeviceFailure, match=rf"NRT_{status.name} \({code}\).*status={code}") as failure:
            run(core)
        assert (failure.value.code, failure.value.drain) == (code, drain_of(status))
        return
    tokens, finish = run(core)
    if status.effect is Effect.FAIL_STEP:
        failed = {name for name, reason in finish.items() if reason is FinishReason.ERROR}
        assert failed  # those of that step, and no others
        assert failed != set(finish)
        for name in set(finish) - failed:
            assert tokens[name] == undisturbed[name]
        # The engine is sound.
        assert run(core)[0] == undisturbed
    else:  # a step that was offered again, or NaN that was in no row of a request
        assert tokens == undisturbed


def test_the_table_is_that_of_the_runtimes_header() -> None:
    """Every code of nrt_status.h but success, in its numbers."""
    named = {name: status.code for status in STATUSES.values() for name in [status.name]}
    assert len(named) == len(STATUSES) == 27
    assert named["EXEC_HW_ERR_NC_UE"] == 1202
    drained = {code for code, status in STATUSES.items() if status.effect is Effect.DRAIN}
    assert drained == {6, 1201, 1202, 1203, 1205}
    assert {code for code, status in STATUSES.items() if drain_of(status) == "repeated"} == {5, 101, 1200}


def test_nan_that_is_told_of_late_fails_the_step_that_it_is_told_with(
    backend: NeuronBackend, device: CpuDevice
) -> None:
    """As the next one is queued: then it is not known what ran."""
    device.faults.coming.append(Fault(1003, at=2, when="execute"))
    core = EngineCore(backend, Interleave())
    assert run(core, REQUESTS[:1])[1] == {"greedy": FinishReason.ERROR}
    assert run(core, REQUESTS[:1])[1] == {"greedy": FinishReason.LENGTH}


@pytest.mark.parametrize("lost", [False, True])
def test_a_row_of_nan_fails_alone_unless_the_outputs_are_lost(
    backend: NeuronBackend, device: CpuDevice, undisturbed: dict[str, list[int]], lost: bool
) -> None:
    """Lost: nobody can say which rows are concerned, so it is all of the step's."""
    device.faults.coming.append(Fault(1003, at=2, lost=lost))
    core = EngineCore(backend, Interleave())
    tokens, finish = run(core, REQUESTS[:1])
    if lost:
        assert finish == {"greedy": FinishReason.ERROR}
    else:
        assert tokens["greedy"] == undisturbed["greedy"]
    assert run(core)[0] == undisturbed


def test_steps_that_never_run_end_the_engine(opened: Artifact, device: CpuDevice) -> None:
    """Three in a row: then it is not a request that is at fault."""
    backend = NeuronBackend(FakeRuntime(device), opened.manifest, depth=1)
    device.faults.coming.extend(Fault(1002, when="execute") for _ in range(3))
    core = EngineCore(backend, Interleave())
    for _ in range(2):
        assert run(core, REQUESTS[:1])[1] == {"greedy": FinishReason.ERROR}
    with pytest.raises(DeviceFailure, match="NRT_EXEC_BAD_INPUT") as failure:
        run(core, REQUESTS[:1])
    assert failure.value.drain == "never"


def test_what_a_step_that_did_not_run_would_have_written_is_served_to_nobody(
    backend: NeuronBackend, device: CpuDevice
) -> None:
    """Neither a failed prompt's blocks, by the prefix cache, nor its token."""
    long = [GenerationRequest("long", [5, 9, 3, 7, 1] * 12, SamplingParams(8))]
    right, _ = run(EngineCore(backend, Interleave()), long)
    core = EngineCore(backend, Interleave())
    for slot in range(1, 4):  # blocks that hold something else
        run(core, [GenerationRequest(str(slot), [slot] * 60, SamplingParams(8))])
    device.faults.count = 0
    device.faults.coming.append(Fault(1002, when="execute"))
    assert run(core, long)[1] == {"long": FinishReason.ERROR}
    assert run(core, long)[0] == right


def test_memory_errors_that_the_driver_counted_drain_the_machine(opened: Artifact, device: CpuDevice) -> None:
    errors = [0]
    backend = NeuronBackend(FakeRuntime(device), opened.manifest, depth=2, uncorrectable=lambda: errors[0])
    device.faults.coming.append(Fault(1004, at=2))
    errors[0] = 1
    with pytest.raises(DeviceFailure) as failure:
        run(EngineCore(backend, Interleave()))
    assert failure.value.drain == "now"


def test_an_index_out_of_bounds_is_caught_as_the_chip_would(backend: NeuronBackend) -> None:
    step = blank_step(backend.buckets[0], backend.capabilities)
    step.slot_mapping[0, 0] += 16
    with pytest.raises(DeviceFailure, match="slot_mapping holds"):
        backend.collect(backend.submit(step))


def test_an_error_without_a_code_ends_the_engine() -> None:
    assert status_of(RuntimeError("Failed")) is UNKNOWN
    assert status_of(RuntimeError("status=4711")) is UNKNOWN
    assert UNKNOWN.effect is Effect.RESTART


def test_closing_twice_gives_the_cores_back_once(backend: NeuronBackend) -> None:
    backend.close()
    backend.close()
    assert backend.runtime.closed


def test_a_step_more_than_the_depth_is_refused(backend: NeuronBackend) -> None:
    steps = [backend.submit(blank_step(backend.buckets[0], backend.capabilities)) for _ in range(2)]
    with pytest.raises(RuntimeError, match="the depth is 2"):
        backend.submit(blank_step(backend.buckets[0], backend.capabilities))
    with pytest.raises(RuntimeError, match="in the order of submission"):
        backend.collect(steps[1])
    for step in steps:
        assert np.array_equal(backend.collect(step).finite, [1])


def changed(manifest: Manifest, index: int, **changes: object) -> Manifest:
    buckets = list(manifest.buckets)
    buckets[index] = msgspec.structs.replace(buckets[index], **changes)
    return msgspec.structs.replace(manifest, buckets=tuple(buckets))


def test_graphs_that_are_not_this_models_are_refused_by_name(opened: Artifact, device: CpuDevice) -> None:
    manifest, runtime = opened.manifest, FakeRuntime(device)
    first = manifest.buckets[0]
    short = changed(manifest, 0, inputs=first.inputs[:-1])
    tokens, *others = first.inputs
    wide = changed(manifest, 0, inputs=(replace(tokens, dtype="int64"), *others))
    fewer = msgspec.structs.replace(manifest, buckets=manifest.buckets[1:])
    only = manifest_of(
        manifest.model.config, SHAPES, [b for b in device_buckets(SHAPES) if b.kind is StepKind.DECODE]
    )
    for wrong, named in (
        (short, rf"buckets\.{first.tag}\.inputs is token_ids.* Mend it with: outcrop compile build"),
        (wide, rf"{first.tag}\.inputs\.token_ids is int64 .* has to be int32"),
        (fewer, rf"buckets is without {first.tag}"),
        (only, "buckets is without prefill"),
    ):
        with pytest.raises(ArtifactMismatch, match=named):
            NeuronBackend(runtime, wrong, depth=2)
    with pytest.raises(ArtifactMismatch, match=r"max_model_len is 256.* --max-model-len 512"):
        NeuronBackend(runtime, manifest, depth=2, max_model_len=512)


def test_an_artifact_without_verify_buckets_has_none(opened: Artifact, device: CpuDevice) -> None:
    plain = [each for each in device_buckets(SHAPES) if each.kind is not StepKind.VERIFY]
    backend = NeuronBackend(
        FakeRuntime(device), manifest_of(opened.manifest.model.config, SHAPES, plain), depth=2
    )
    assert set(backend.buckets) == set(plain)
    assert isinstance(backend.buckets[0], Bucket)
