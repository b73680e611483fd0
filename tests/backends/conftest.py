"""What the tests of backends share: each backend, and who is right about its answers."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import demo
import pytest
import torch
from demo import Make, Weights

from outcrop.backends.base import Backend

SDK = Path(__file__).parents[1] / "neuron" / "sdk"
_made: list[Backend] = []


@pytest.fixture(
    scope="module",
    params=[
        "cpu",
        "neuron",
        pytest.param("neuron on the demo model", marks=pytest.mark.slow),
        pytest.param("transformers-neuronx", marks=pytest.mark.slow),
    ],
)
def subject(request: pytest.FixtureRequest) -> str:
    """The backend under test, by name. The Neuron one is over a stand-in for its runtime, the legacy one over
    a stand-in for its package, and they are on a small model of random weights unless they say otherwise."""
    return str(request.param)


@pytest.fixture(scope="module")
def weights(subject: str) -> Weights:
    return demo.random_weights() if subject in ("neuron", "transformers-neuronx") else demo.demo_weights()


@pytest.fixture(scope="module")
def make(subject: str, weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Makes a backend; options as in `demo.backend`."""
    with pytest.MonkeyPatch.context() as patch:
        maker: Callable[..., Backend] = demo.backend if subject == "cpu" else demo.neuron_backend
        if subject == "transformers-neuronx":
            patch.syspath_prepend(str(SDK))
            patch.setenv("NEURON_RT_VISIBLE_CORES", "0-1")
            maker = _legacy(weights, tmp_path_factory.mktemp("checkpoint"))

        def tracked(of: Weights | None = None, **options: Any) -> Backend:
            _made.append(maker(of or weights, **options))
            return _made[-1]

        yield tracked


def _legacy(weights: Weights, folder: Path) -> Callable[..., Backend]:
    """Makes backends of these weights alone, which are written to a folder for the package to read. What the
    package has no choice of skips the test."""
    weights.judge().save_pretrained(folder)  # type: ignore[operator]

    def made(of: Weights, **options: Any) -> Backend:
        for name, reason in {
            "blocks": "the package keeps room for every row's whole context",
            "guesses": "the package verifies no guesses",
        }.items():
            if options.get(name):
                pytest.skip(reason)
        if of is not weights:
            pytest.skip("weights that are no numbers are in test_transformers_neuronx.py")
        sizes = {
            name: options[name] for name in ("max_rows", "max_model_len", "block_size") if name in options
        }
        return demo.legacy_backend(folder, **sizes)

    return made


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
