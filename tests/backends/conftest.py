"""What the tests of backends share: each backend, and who is right about its answers."""

import gc
from collections.abc import Iterator
from typing import Any

import demo
import pytest
import torch
from demo import Make, Weights

from outcrop.backends.base import Backend

_made: list[Backend] = []


@pytest.fixture(
    scope="module",
    params=["cpu", "neuron", pytest.param("neuron on the demo model", marks=pytest.mark.slow)],
)
def subject(request: pytest.FixtureRequest) -> str:
    """The backend under test, by name. The Neuron one is over a stand-in for its runtime, and on a small
    model of random weights unless it says otherwise."""
    return str(request.param)


@pytest.fixture(scope="module")
def weights(subject: str) -> Weights:
    return demo.random_weights() if subject == "neuron" else demo.demo_weights()


@pytest.fixture(scope="module")
def make(subject: str, weights: Weights) -> Make:
    """Makes a backend; options as in `demo.backend`."""
    maker = demo.backend if subject == "cpu" else demo.neuron_backend

    def tracked(of: Weights | None = None, **options: Any) -> Backend:
        _made.append(maker(of or weights, **options))
        return _made[-1]

    return tracked


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    """Pools of KV are large: none outlives its test."""
    yield
    for engine in _made:
        engine.close()
    _made.clear()
    gc.collect()


@pytest.fixture(scope="module")
def judge(weights: Weights) -> torch.nn.Module:
    return weights.judge()
