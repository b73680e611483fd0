"""The vocabulary inside a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from outcrop.text import llama3
from outcrop.text.base import TokenizerError, TokenizerFacts, end_of_turn_ids
from outcrop.text.byte_level import ByteLevelTokenizer
from outcrop_compile.checkpoint.gguf_header import GGUFError, read_header

_CONTROL, _USER_DEFINED = 3, 4  # values of tokenizer.ggml.token_type


@dataclass(frozen=True, slots=True)
class _Family:
    """What a value of `tokenizer.ggml.pre` implies, after llama.cpp's `llama_vocab` (src/llama-vocab.cpp)."""

    splitter: pre_tokenizers.PreTokenizer
    adds_bos: bool
    ignore_merges: bool  # a piece that is itself in the vocabulary needs no merges


_FAMILIES = {
    "llama-bpe": _Family(
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(llama3.PATTERN), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
        adds_bos=True,
        ignore_merges=True,
    ),
    "smollm": _Family(
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        ),
        adds_bos=False,
        ignore_merges=False,
    ),
}


def load_gguf(path: Path) -> ByteLevelTokenizer:
    """Read the tokenizer of a GGUF file. Raises TokenizerError, OSError."""
    try:
        metadata = read_header(path).metadata
    except GGUFError as error:
        raise TokenizerError(str(error)) from None
    family = _family(path, metadata)
    tokens = _strings(path, metadata, "tokenizer.ggml.tokens")
    vocabulary = {token: i for i, token in enumerate(tokens)}
    try:
        merges = [tuple(merge.split(" ")) for merge in _strings(path, metadata, "tokenizer.ggml.merges")]
        backend = tokenizers.Tokenizer(
            models.BPE(vocabulary, merges, ignore_merges=family.ignore_merges)  # type: ignore[arg-type]
        )
    except Exception as error:  # the package raises bare Exception
        raise TokenizerError(f"{path}: tokenizer.ggml.merges does not fit the tokens: {error}") from None
    backend.pre_tokenizer = family.splitter
    backend.decoder = decoders.ByteLevel()
    special = _tokens_of_type(path, metadata, tokens, _CONTROL)
    defined = _tokens_of_type(path, metadata, tokens, _USER_DEFINED)
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    backend.add_tokens([AddedToken(token, normalized=False) for token in defined])
    ids = _token_ids(path, metadata, len(tokens))
    uses_bos = bool(metadata.get("tokenizer.ggml.add_bos_token", family.adds_bos))
    template = metadata.get("tokenizer.chat_template")
    facts = TokenizerFacts(
        vocab_size=len(tokens),
        max_token_bytes=max(*map(len, tokens), *(len(token.encode()) for token in (*special, *defined))),
        special_tokens=special,
        bos_id=ids.get("bos") if uses_bos else None,
        eos_ids=end_of_turn_ids(special, (ids[n] for n in ("eos", "eot", "eom") if n in ids)),
        named_tokens={f"{name}_token": tokens[ids[name]] for name in ("bos", "eos") if name in ids},
        chat_template=template if isinstance(template, str) else None,
    )
    try:
        return ByteLevelTokenizer(backend, facts)
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from None


def _family(path: Path, metadata: Mapping[str, Any]) -> _Family:
    model, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    family = _FAMILIES.get(pre) if model == "gpt2" and isinstance(pre, str) else None
    if family is None:
        raise TokenizerError(
            f"{path}: tokenizer.ggml.model {model!r} with tokenizer.ggml.pre {pre!r} is not supported. "
            f"Supported: model 'gpt2' with pre {' or '.join(map(repr, _FAMILIES))}"
        )
    return family


def _strings(path: Path, metadata: Mapping[str, Any], key: str) -> list[str]:
    value = metadata.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise TokenizerError(f"{path}: {key} is missing or not a list of strings")
    return value


def _tokens_of_type(path: Path, metadata: Mapping[str, Any], tokens: list[str], kind: int) -> dict[str, int]:
    kinds = metadata.get("tokenizer.ggml.token_type")
    if not isinstance(kinds, list) or len(kinds) != len(tokens):
        raise TokenizerError(f"{path}: tokenizer.ggml.token_type does not have one entry per token")
    return {tokens[i]: i for i, value in enumerate(kinds) if value == kind}


def _token_ids(path: Path, metadata: Mapping[str, Any], vocab_size: int) -> dict[str, int]:
    """The ids of the tokens that the file names: bos, eos, eot, eom."""
    ids = {}
    for name in ("bos", "eos", "eot", "eom"):
        key = f"tokenizer.ggml.{name}_token_id"
        value = metadata.get(key)
        if value is None:
            continue
        if not isinstance(value, int) or not 0 <= value < vocab_size:
            raise TokenizerError(f"{path}: {key} is {value!r}; the vocabulary has {vocab_size} tokens")
        ids[name] = value
    return ids
