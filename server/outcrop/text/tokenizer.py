"""Find and load the tokenizer of a checkpoint, whatever its layout."""

from __future__ import annotations

from pathlib import Path

from outcrop.text.base import Tokenizer, TokenizerError
from outcrop.text.gguf_tokenizer import load_gguf
from outcrop.text.hf_tokenizer import load_hf
from outcrop.text.tiktoken_tokenizer import load_tiktoken

__all__ = ["Tokenizer", "TokenizerError", "load_tokenizer"]


def load_tokenizer(checkpoint: Path) -> Tokenizer:
    """The tokenizer of a checkpoint: a folder with tokenizer.json (Hugging Face) or tokenizer.model
    (Meta's layout), or a GGUF file. Raises TokenizerError naming the file and what is supported."""
    try:
        if checkpoint.is_dir():
            if (checkpoint / "tokenizer.json").is_file():
                return load_hf(checkpoint)
            if (checkpoint / "tokenizer.model").is_file():
                return load_tiktoken(checkpoint / "tokenizer.model")
        elif checkpoint.suffix == ".gguf":
            return load_gguf(checkpoint)
    except OSError as error:
        raise TokenizerError(f"{error.filename or checkpoint}: {error.strerror or error}") from None
    raise TokenizerError(
        f"{checkpoint}: no tokenizer found. Supported: a folder with tokenizer.json or with Meta's "
        "tokenizer.model, or a .gguf file"
    )
