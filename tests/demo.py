"""The demo model, for tests that need real weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from outcrop.backends.cpu import CpuBackend
from outcrop.text.chat_template import ChatMessage, load_chat_template
from outcrop.text.tokenizer import load_tokenizer
from outcrop_compile.checkpoint import open_checkpoint
from outcrop_compile.weights import load_weights
from outcrop_kernels.cpu.native.library import available

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
def weights() -> dict[str, Any]:
    return load_weights(open_checkpoint(PATH), dtype="float32")


@cache
def prompts() -> tuple[list[int], ...]:
    """The twenty questions in the model's own chat format."""
    tokenizer = load_tokenizer(PATH)
    template = load_chat_template(PATH, tokenizer)
    return tuple(template.encode([ChatMessage("user", question)]) for question in QUESTIONS)


def backend(**changes: Any) -> CpuBackend:
    """A CPU backend on the demo weights, which all backends of a test run share."""
    options: dict[str, Any] = {
        "kv_memory": 256 << 20, "max_model_len": 512, "max_rows": 20, "block_size": 16,
        "depth": 2, "threads": None, "native": available(),
    }  # fmt: skip
    return CpuBackend(open_checkpoint(PATH).config, weights(), **(options | changes))
