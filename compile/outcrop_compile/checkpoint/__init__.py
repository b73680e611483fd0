"""Checkpoints of Llama models, in Hugging Face's, Meta's and llama.cpp's formats. No torch, except to read
Meta's .pth files."""

from outcrop_compile.checkpoint.errors import CheckpointError
from outcrop_compile.checkpoint.model import Checkpoint, Format
from outcrop_compile.checkpoint.open import open_checkpoint

__all__ = ["Checkpoint", "CheckpointError", "Format", "open_checkpoint"]
