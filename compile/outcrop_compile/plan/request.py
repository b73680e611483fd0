"""What a plan is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from outcrop_compile.config import LlamaConfig
from outcrop_compile.instances import Instance

Dtype = Literal["bfloat16", "int8", "float32"]
DTYPES: tuple[Dtype, ...] = ("bfloat16", "int8", "float32")
Plain = Literal["bfloat16", "float32"]

DEFAULT_MAX_MODEL_LEN = 8192
DEFAULT_BATCH = 32
DEFAULT_BLOCK_SIZE = 32
"""Tokens of a block: with one key-value head of 128 numbers a rank, 8 KiB are read at once."""


def plain_type(dtype: Dtype) -> Plain:
    """The type of what is not quantised: of activations, KV and embeddings."""
    return "float32" if dtype == "float32" else "bfloat16"


def plain_bytes(dtype: Dtype) -> int:
    """Of one number of that type."""
    return 4 if plain_type(dtype) == "float32" else 2


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """A model, a machine and what is wanted of them.

    tp: NeuronCores that share the model; None for the plan to choose. max_model_len: tokens of one sequence,
    prompt and answer; None for 8192, or what the model has. batch: requests computed side by side.
    block_size: tokens of a KV block. slots: blocks that hold a whole sequence each, instead; for compilers
    that cannot do pages (NCC_ITEN404, aws-neuron-sdk issue 1304). dtype: int8 is of matrices, with bfloat16
    beside it. guesses: tokens of speculation that a verify step takes. reserve: bytes of a core to leave for
    code, rings and the runtime, instead of the estimate. Raises ValueError for numbers that mean nothing.
    """

    name: str
    config: LlamaConfig
    instance: Instance
    tp: int | None = None
    max_model_len: int | None = None
    batch: int = DEFAULT_BATCH
    block_size: int = DEFAULT_BLOCK_SIZE
    slots: bool = False
    dtype: Dtype = "bfloat16"
    guesses: int = 0
    reserve: int | None = None

    def __post_init__(self) -> None:
        for name in ("tp", "max_model_len", "batch", "block_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it has to be at least 1")
        for name in ("guesses", "reserve"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it cannot be negative")

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return self.max_model_len or min(DEFAULT_MAX_MODEL_LEN, self.config.context)

    @property
    def block(self) -> int:
        """Tokens of a block, in slots too."""
        return self.length if self.slots else self.block_size

    @property
    def itemsize(self) -> int:
        """Bytes of a number of the KV cache and of activations."""
        return plain_bytes(self.dtype)
