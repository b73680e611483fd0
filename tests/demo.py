"""The demo model, for tests that need real weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from fake_neuron import CpuDevice, FakeRuntime, as_tensor
from neuron_artifact import device_buckets, manifest_of
from tiny_models import LLAMA_32, tiny_model, write_huggingface
from transformers import AutoModelForCausalLM

from outcrop.backends.base import Backend
from outcrop.backends.cpu import CpuBackend, pack
from outcrop.backends.kv_memory import kv_capacity
from outcrop.backends.neuron.backend import NeuronBackend
from outcrop.backends.transformers_neuronx.backend import TransformersNeuronxBackend, open_backend
from outcrop.engine.config import EngineConfig
from outcrop.text.chat_template import ChatMessage, load_chat_template
from outcrop.text.tokenizer import load_tokenizer
from outcrop_compile.artifact.manifest import Shapes
from outcrop_compile.checkpoint import open_checkpoint
from outcrop_compile.config import LlamaConfig
from outcrop_compile.llama import PagedLlama
from outcrop_compile.weights import load_weights
from outcrop_kernels.cpu.native.library import available
from outcrop_kernels.cpu.native.weight_memory import WeightMemory
from outcrop_kernels.reference import TOPK_CAP

PATH = Path(__file__).parent.parent / ".demo" / "SmolLM2-135M-Instruct.Q4_1.gguf"

QUESTIONS = (
    "What is the capital of France?", "Write a haiku about the sea.", "Count from one to ten.",
    "Explain gravity to a child.", "Translate 'good morning' into Spanish.", "Name three primary colors.",
    "Why is the sky blue?", "Give me a recipe for pancakes.", "Who wrote Hamlet?", "What is 12 times 12?",
    "Tell me a short story about a dragon who is afraid of fire.", "List the planets of the solar system.",
    "What does HTTP stand for?", "Describe a sunset in one sentence.", "How do birds fly?",
    "Write a Python function that adds two numbers.", "What is photosynthesis?", "Suggest a name for a cat.",
    "Was ist der Unterschied zwischen Wetter und Klima?", "Summarize the plot of Romeo and Juliet. " * 6,
)  # fmt: skip


@cache
def prompts() -> tuple[list[int], ...]:
    """The twenty questions in the model's own chat format."""
    tokenizer = load_tokenizer(PATH)
    template = load_chat_template(PATH, tokenizer)
    return tuple(template.encode([ChatMessage("user", question)]) for question in QUESTIONS)


@dataclass(frozen=True)
class Weights:
    """A model to run. arrays: of `load_weights`. judge: the same in transformers."""

    config: LlamaConfig
    arrays: dict[str, Any]
    judge: Callable[[], torch.nn.Module]

    @cached_property
    def packed(self) -> WeightMemory:
        """For the native kernels; all backends of a test run share it."""
        return pack(dict(self.arrays))

    @property
    def for_cpu(self) -> WeightMemory | dict[str, Any]:
        return self.packed if available() else self.arrays


@cache
def demo_weights() -> Weights:
    checkpoint = open_checkpoint(PATH)

    @cache
    def judge() -> torch.nn.Module:
        model = AutoModelForCausalLM.from_pretrained(
            PATH.parent, gguf_file=PATH.name, dtype=torch.float32, local_files_only=True
        )
        return cast("torch.nn.Module", model.eval())

    return Weights(checkpoint.config, load_weights(checkpoint, dtype="float32"), judge)


@cache
def random_weights() -> Weights:
    """A model of random weights that takes the demo model's tokens, at a hundredth of its work."""
    model = tiny_model(
        LLAMA_32,
        vocab_size=demo_weights().config.vocab_size,
        hidden_size=64,
        intermediate_size=128,
        head_dim=16,
    )
    with TemporaryDirectory() as folder:
        checkpoint = open_checkpoint(write_huggingface(model, Path(folder)))
        return Weights(checkpoint.config, load_weights(checkpoint, dtype="float32"), lambda: model)


Make = Callable[..., Backend]
"""Makes a backend; options as `backend` below has them."""


def _options(weights: Weights, changes: dict[str, Any]) -> dict[str, Any]:
    """blocks: KV blocks, instead of kv_memory."""
    options = {"kv_memory": 256 << 20, "max_model_len": 512, "block_size": 16} | changes
    if (blocks := options.pop("blocks", None)) is not None:
        config = weights.config
        number = 2 * config.num_layers * options["block_size"] * config.num_kv_heads * config.head_dim
        options["kv_memory"] = blocks * number * 4
    return options


def backend(weights: Weights | None = None, **changes: Any) -> CpuBackend:
    """A CPU backend on the demo weights, or on others."""
    weights = weights or demo_weights()
    # One thread, for tests run side by side.
    options = {"max_rows": 20, "depth": 2, "threads": 1, "native": available()} | changes
    return CpuBackend(weights.config, weights.for_cpu, **_options(weights, options))


def neuron_backend(
    weights: Weights | None = None,
    *,
    max_rows: int = 20,
    depth: int = 2,
    guesses: int = 0,
    **changes: Any,
) -> NeuronBackend:
    """The same with a Neuron backend, over a stand-in for its runtime."""
    weights = weights or demo_weights()
    config, options = weights.config, _options(weights, changes)
    kv = kv_capacity(config, itemsize=4, **options)
    shapes = Shapes(
        dtype="float32", quantisation=None, block_size=options["block_size"], num_blocks=kv.num_blocks,
        max_model_len=kv.max_model_len, max_rows=max_rows, guesses=guesses, topk_cap=TOPK_CAP,
    )  # fmt: skip
    manifest = manifest_of(config, shapes, device_buckets(shapes))
    found = weights.for_cpu
    device = CpuDevice(
        manifest,
        found
        if isinstance(found, WeightMemory)
        else [{name: as_tensor(array) for name, array in found.items()}],
    )
    return NeuronBackend(FakeRuntime(device), manifest, depth=depth)


def legacy_backend(folder: Path, **changes: Any) -> TransformersNeuronxBackend:
    """The same with the legacy backend, over a stand-in for its package, which has to be importable. changes:
    of the engine's configuration."""
    options = {"max_model_len": 512, "max_rows": 20, "block_size": 16, "cores": "0-1", "dtype": "float32"}
    return open_backend(EngineConfig(str(folder), "transformers-neuronx", **options | changes))[0]


def model_of(engine: Backend) -> PagedLlama:
    """The model that a backend of these runs."""
    if isinstance(engine, NeuronBackend):
        assert isinstance(engine.runtime, FakeRuntime)
        return engine.runtime.device.models[0]
    assert isinstance(engine, CpuBackend)
    return engine.model
