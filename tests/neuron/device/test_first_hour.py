"""What only a device can show, in the order in which it is worth knowing. Not yet run on a device.

See README.md for the command, what it should print and what to report.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from neuron_steps import TOKENS, answers, oracle, report, requests, step_times

from outcrop.backends.base import StepInput, blank_step
from outcrop.backends.neuron.backend import NeuronBackend
from outcrop.backends.neuron.nrt import status_of
from outcrop.backends.neuron.runtime import NxdRuntime
from outcrop.engine.messages import FinishReason, GenerationRequest, SamplingParams
from outcrop_compile.artifact import Artifact
from outcrop_compile.bucket import StepKind


def test_1_the_machine_is_fit(artifact: Artifact) -> None:
    """`outcrop doctor` finds nothing to mend."""
    done = subprocess.run(
        [sys.executable, "-m", "outcrop.cli.main", "doctor"], capture_output=True, text=True, check=False
    )
    report("doctor", f"status {done.returncode}\n{done.stdout}")
    assert done.returncode == 0, done.stdout


def test_2_every_graph_runs(backend: NeuronBackend) -> None:
    started, told = time.perf_counter(), []
    backend.warmup(lambda stage, fraction: told.append(time.perf_counter()))
    report("graphs", len(told))
    report("warm-up", f"{told[-1] - started:.1f} s")
    assert len(told) >= 2 * len(backend.buckets) - 1


def test_3_states_are_updated_in_place(backend: NeuronBackend) -> None:
    """A step writes the slots it is told to, and nothing else: KV pools and token table are aliased."""
    model = nxd_model(backend)
    step, caps = blank_step(backend.buckets[0], backend.capabilities), backend.capabilities
    before = model.read_from_neuron_buffer("layers.0.key_pool", 0).clone()
    slots = step.slot_mapping.copy()
    slots[0, 0] = 3 * caps.block_size + 1
    sampled, places = step.sampled.copy(), step.slots.copy()
    sampled[0], places[0] = 1, 0
    ids = np.full_like(step.token_ids, 5)
    output = run(backend, replace(step, slot_mapping=slots, token_ids=ids, sampled=sampled, slots=places))
    after = model.read_from_neuron_buffer("layers.0.key_pool", 0)
    changed = (after[:-1] != before[:-1]).flatten(2).any(dim=2).nonzero().tolist()  # the sink aside
    assert changed == [[3, 1]]
    kept = model.read_from_neuron_buffer("last_token", 0)
    assert int(kept[0]) == int(output.reshape(-1)[0])


def test_4_greedy_answers_are_those_of_the_cpu(
    backend: NeuronBackend, artifact: Artifact, checkpoint: Path
) -> None:
    """In float32 all of them; in bfloat16 up to where rounding decides, not before the first token."""
    wanted = requests(backend, SamplingParams(TOKENS))
    ours, theirs = answers(backend, wanted), answers(oracle(artifact, checkpoint, backend), wanted)
    same = [
        next((i for i in range(TOKENS) if ours[name][0][i] != theirs[name][0][i]), TOKENS) for name in ours
    ]
    report("tokens equal to the CPU's before the first that differs", same)
    assert min(same) >= 1
    if artifact.manifest.shapes.dtype == "float32":
        assert min(same) == TOKENS


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_5_company_and_depth_change_no_answer(backend: NeuronBackend, temperature: float) -> None:
    """Two steps in flight, tokens kept on the device: as one request at a time, one step at a time."""
    wanted = requests(backend, SamplingParams(TOKENS, temperature, 0.9, seed=7))
    together = answers(backend, wanted)
    capabilities = backend.capabilities
    try:
        backend.capabilities = replace(capabilities, depth=1)
        alone = answers(backend, wanted, together=False)
    finally:
        backend.capabilities = capabilities
    different = [name for name in together if together[name] != alone[name]]
    report(f"answers that differ at temperature {temperature}", different)
    assert not different


def test_6_how_fast_each_decode_bucket_is(backend: NeuronBackend) -> None:
    """Median of steps that are submitted two at a time, and what `submit` takes of the host."""
    for bucket in (each for each in backend.buckets if each.kind is StepKind.DECODE):
        step, submit = step_times(backend, bucket)
        report(
            f"decode {bucket.rows} rows, {bucket.blocks} blocks",
            f"{step * 1e3:.2f} ms a step, {submit * 1e3:.3f} ms to submit",
        )


def test_7_a_row_of_nan_fails_alone(backend: NeuronBackend) -> None:
    """One token's embedding is made NaN. Says whether the runtime raises 1003, and whether the outputs can
    be read then; if they cannot, whole steps fail and not rows."""
    model, token = nxd_model(backend), 201
    embed = model.read_from_neuron_buffer("embed", 0).clone()
    broken = embed.clone()
    broken[token] = float("nan")
    bad = GenerationRequest("bad", [5, token, 6], SamplingParams(4))
    good = requests(backend, SamplingParams(4))[:2]
    before = answers(backend, good)
    try:
        model.write_to_neuron_buffer(broken, "embed", 0)
        found = answers(backend, [bad, *good])
    finally:
        model.write_to_neuron_buffer(embed, "embed", 0)
    report("finish of the bad request", found["bad"][1])
    report("good requests unharmed", all(found[name] == before[name] for name in before))
    assert found["bad"][1] is FinishReason.ERROR
    assert answers(backend, good) == before


def test_8_an_index_out_of_bounds_is_reported(backend: NeuronBackend) -> None:
    """The last one: the device's state is unknown afterwards. Expected: status 1006."""
    step = blank_step(backend.buckets[0], backend.capabilities)
    tables = step.block_tables.copy()
    tables[0, 0] = backend.capabilities.num_blocks + 1000
    with pytest.raises(RuntimeError) as failed:
        run(backend, replace(step, block_tables=tables))
    report("status of an index out of bounds", f"{status_of(failed.value)}: {failed.value}")


def run(backend: NeuronBackend, step: StepInput) -> np.ndarray:
    return backend.collect(backend.submit(step)).tokens


def nxd_model(backend: NeuronBackend) -> torch.nn.Module:
    """NxD's model, whose buffers can be read and written."""
    assert isinstance(backend.runtime, NxdRuntime)
    return backend.runtime._model
