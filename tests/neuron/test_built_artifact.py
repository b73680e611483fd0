"""From `outcrop compile build` to tokens: what was built is what the backend serves, whatever it is for.

Compiler and runtime are stand-ins; checkpoint, shards, manifest, model, scheduler and backend are not.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_compiler import FakeCompiler
from fake_neuron import CpuDevice, FakeRuntime
from safetensors.torch import load_file

from outcrop.backends.base import Backend
from outcrop.backends.cpu import CpuBackend
from outcrop.backends.neuron.backend import NeuronBackend
from outcrop.engine.core import EngineCore
from outcrop.engine.messages import GenerationRequest, SamplingParams
from outcrop.engine.policy import Interleave
from outcrop_compile.artifact import Artifact, Place, open_artifact, require
from outcrop_compile.artifact.kernels import kernel_digests
from outcrop_compile.artifact.open_store import open_store
from outcrop_compile.builder import Options, build
from outcrop_compile.checkpoint import open_checkpoint
from outcrop_compile.instances import INSTANCES
from outcrop_compile.plan import PlanRequest, make_plan
from outcrop_compile.sdk import RELEASES
from outcrop_compile.shards import model_weights
from outcrop_compile.weights import load_weights

REQUESTS = [
    GenerationRequest("greedy", [5, 9, 3], SamplingParams(12)),
    GenerationRequest("sampled", [7, 2, 8, 8], SamplingParams(12, temperature=0.9, top_p=0.9, seed=4)),
    GenerationRequest("edited", [1, 2, 3], SamplingParams(12, repetition_penalty=1.3)),
]


def built(checkpoint: Path, out: Path, **changes: Any) -> Artifact:
    """With few blocks, since the stand-ins have them in memory."""
    found = open_checkpoint(checkpoint)
    options = {"max_model_len": 128, "batch": 4, "block_size": 16, "dtype": "float32"} | changes
    plan = make_plan(PlanRequest("tiny", found.config, INSTANCES["inf2.8xlarge"], **options))
    plan = replace(plan, num_blocks=8 if plan.request.slots else 40)
    build(plan, found, out, FakeCompiler(), Options("tiny", "0.1.0", workers=1), lambda stage, done: None)
    return open_artifact(out, hashes=True)


def answers(backend: Backend) -> dict[str, list[int]]:
    core = EngineCore(backend, Interleave())
    for request in REQUESTS:
        core.add(request)
    tokens: dict[str, list[int]] = {request.request_id: [] for request in REQUESTS}
    while not core.idle:
        for delta in core.step():
            tokens[delta.request_id] += delta.tokens
    return tokens


def served(artifact: Artifact) -> dict[str, list[int]]:
    weights = [model_weights(load_file(path)) for path in artifact.weights()]
    device = CpuDevice(artifact.manifest, weights)
    try:
        return answers(NeuronBackend(FakeRuntime(device), artifact.manifest, depth=2))
    finally:
        device.close()


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> dict[str, list[int]]:
    """What the CPU backend answers."""
    found = open_checkpoint(checkpoint)
    backend = CpuBackend(
        found.config, load_weights(found), kv_memory=4 << 20, max_model_len=128, max_rows=4, block_size=16,
        depth=2, threads=1, native=False,
    )  # fmt: skip
    tokens = answers(backend)
    backend.close()
    assert {len(each) for each in tokens.values()} == {12}
    return tokens


@pytest.mark.parametrize("changes", [{"tp": 1}, {"tp": 2}, {"tp": 2, "slots": True}])
def test_an_artifact_serves_what_the_cpu_backend_does(
    checkpoint: Path, expected: dict[str, list[int]], tmp_path: Path, changes: dict[str, Any]
) -> None:
    """One core or two, pages or slots."""
    assert served(built(checkpoint, tmp_path, **changes)) == expected


def test_it_is_what_this_place_wants_after_a_journey(
    checkpoint: Path, expected: dict[str, list[int]], tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "store"))
    key = built(checkpoint, tmp_path / "built", tp=2).manifest.key
    store.push(tmp_path / "built")
    artifact = store.pull(key[:12], tmp_path / "pulled")
    packages = dict(RELEASES["2.31.1"].python)
    kernels = kernel_digests(artifact.manifest.kernels)
    require(artifact.manifest, Place(arch="trn1", cores=2, packages=packages, kernels=kernels, max_rows=4))
    assert served(artifact) == expected
