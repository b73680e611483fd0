"""NKI kernels on a device: what each says beside the reference, whether DMA gathers by indices, and steps
with and without them. Not yet run on a device.

See README.md for the commands, what they should print and what to report.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from neuron_steps import TOKENS, answers, report, requests, step_times

from outcrop.backends.neuron.backend import NeuronBackend
from outcrop.engine.messages import SamplingParams
from outcrop_compile.artifact import Artifact, open_artifact
from outcrop_compile.bucket import StepKind
from outcrop_kernels.nki.cases import Case, distance, first_cases
from outcrop_kernels.nki.language import SIMULATED
from outcrop_kernels.nki.operations import Call, run


def on_device(case: Case, *, gather: bool) -> tuple[float, float]:
    """How far the device's results are from the reference's, and what the contract allows."""
    from torch_xla.core import xla_model

    device = xla_model.xla_device()
    entry, arguments, expected = case.make()
    placed: list[Any] = [one.to(device) if isinstance(one, torch.Tensor) else one for one in arguments]
    results = run(Call(case.kernel, entry, tuple(placed), gather))
    results = results if isinstance(results, tuple) else (results,)
    error = max(distance(one.cpu(), other) for one, other in zip(results, expected, strict=True))
    return error, entry.contract.tolerance[case.dtype]


@pytest.mark.skipif(SIMULATED, reason="AWS's package nki is not installed")
@pytest.mark.parametrize("case", first_cases(), ids=lambda case: f"{case.kernel}-{case.words}")
def test_1_a_kernel_equals_the_reference(case: Case) -> None:
    """Without gathers. The scalar engine's functions are approximations: twice the tolerance is let pass."""
    error, allowed = on_device(case, gather=False)
    report(f"{case.kernel} {case.words}", f"differs by {error:.2e}, allowed {allowed:.2e}")
    assert error <= 2 * allowed


@pytest.mark.skipif(SIMULATED, reason="AWS's package nki is not installed")
@pytest.mark.parametrize("kernel", ["kv_cache_write", "paged_decode_attention"])
def test_2_dma_gathers_by_indices(kernel: str) -> None:
    """The question that `--indirect-dma` waits for: the guide to DGE says from NeuronCore-v3 on, and older
    kernels did it here. A failure is an answer: build without it."""
    case = next(one for one in first_cases() if one.kernel == kernel)
    error, allowed = on_device(case, gather=True)
    report(f"indirect DMA in {kernel}", f"differs by {error:.2e}, allowed {allowed:.2e}")
    assert error <= 2 * allowed


def test_3_steps_with_kernels_beside_steps_without(
    artifact: Artifact, request: pytest.FixtureRequest
) -> None:
    """Greedy answers begin alike, and how long each decode bucket takes with each choice of kernels."""
    paths: list[Path] = request.config.getoption("--with-kernels", default=None) or []
    if not paths:
        pytest.skip("no --with-kernels FOLDER is given: see tests/neuron/device/README.md")
    plain, before = measured(artifact)
    for path in paths:
        other = open_artifact(path)
        names = ", ".join(other.manifest.kernels) or "no kernels"
        assert other.manifest.model.sha256 == artifact.manifest.model.sha256
        found, times = measured(other)
        same = [first_difference(found[key], plain[key]) for key in plain]
        report(f"with {names}: first token that differs, of each answer (-1: none)", same)
        assert 0 not in same
        for bucket, seconds in times.items():
            ratio = before[bucket] / seconds if bucket in before else float("nan")
            said = f"{seconds * 1e3:.2f} ms, {ratio:.2f} times as fast as without"
            report(f"with {names}: {bucket}", said)


def first_difference(some: list[int], others: list[int]) -> int:
    """-1 where there is none."""
    pairs = enumerate(zip(some, others, strict=False))
    return next((place for place, (one, other) in pairs if one != other), -1)


def measured(artifact: Artifact) -> tuple[dict[str, list[int]], dict[str, float]]:
    """Greedy answers by request, and seconds of a step by decode bucket. The cores are free again then."""
    with loaded(artifact) as backend:
        backend.warmup(lambda stage, fraction: None)
        said = answers(backend, requests(backend, SamplingParams(TOKENS)))
        times = {
            f"decode {bucket.rows} rows, {bucket.blocks} blocks": step_times(backend, bucket)[0]
            for bucket in backend.buckets
            if bucket.kind is StepKind.DECODE
        }
    return {key: tokens for key, (tokens, _) in said.items()}, times


@contextmanager
def loaded(artifact: Artifact) -> Iterator[NeuronBackend]:
    from outcrop.backends.neuron.launch import open_backend
    from outcrop.engine.config import EngineConfig

    config = EngineConfig(model=str(artifact.path), backend="neuron", artifact=str(artifact.path))
    backend, _ = open_backend(config, lambda stage, fraction: None)
    try:
        yield backend
    finally:
        backend.close()
