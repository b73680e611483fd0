"""The tokenizer of a Hugging Face checkpoint: tokenizer.json and the JSON files beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models

from outcrop.text.base import TokenizerError, TokenizerFacts, end_of_turn_ids
from outcrop.text.byte_level import ByteLevelTokenizer

_SUPPORTED = "Supported: byte-level BPE without a normalizer (the Llama 3 family)"


def load_hf(folder: Path) -> ByteLevelTokenizer:
    """Read tokenizer.json, tokenizer_config.json, generation_config.json, config.json and
    chat_template.jinja; all but the first are optional. Raises TokenizerError, OSError."""
    path = folder / "tokenizer.json"
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare Exception
        raise TokenizerError(f"{path}: cannot be read: {error}") from None
    _check_supported(path, backend)
    config = _read_object(folder / "tokenizer_config.json")
    added = backend.get_added_tokens_decoder()
    special = {token.content: i for i, token in added.items() if token.special}
    vocabulary = backend.get_vocab(with_added_tokens=False)
    added_bytes = (len(token.content.encode()) for token in added.values())
    named = _named_tokens(config)
    declared = {*_declared_eos(folder / "generation_config.json"), *_declared_eos(folder / "config.json")}
    if named.get("eos_token") in special:
        declared.add(special[named["eos_token"]])
    facts = TokenizerFacts(
        vocab_size=max((*vocabulary.values(), *added)) + 1,
        max_token_bytes=max(*map(len, vocabulary), *added_bytes),
        special_tokens=special,
        bos_id=_bos_id(path, backend, config, named, special),
        eos_ids=end_of_turn_ids(special, declared),
        named_tokens=named,
        chat_template=_chat_template(folder, config),
    )
    try:
        return ByteLevelTokenizer(backend, facts)
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from None


def _check_supported(path: Path, backend: tokenizers.Tokenizer) -> None:
    model = type(backend.model).__name__
    if not isinstance(backend.model, models.BPE):
        raise TokenizerError(f"{path}: model type {model} is not supported. {_SUPPORTED}")
    if backend.get_vocab_size(with_added_tokens=False) == 0:
        raise TokenizerError(f"{path}: the vocabulary is empty")
    if backend.normalizer is not None:
        name = type(backend.normalizer).__name__
        raise TokenizerError(f"{path}: normalizer {name} is not supported. {_SUPPORTED}")
    for role, component in (("pre_tokenizer", backend.pre_tokenizer), ("decoder", backend.decoder)):
        # A component pickles to its JSON form, which is how it says what it is made of.
        state = json.loads(component.__getstate__()) if component is not None else {}
        parts = [state, *state.get("pretokenizers", ()), *state.get("decoders", ())]
        if not any(part.get("type") == "ByteLevel" for part in parts):
            raise TokenizerError(f"{path}: the {role} is not byte-level. {_SUPPORTED}")


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise TokenizerError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise TokenizerError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _declared_eos(path: Path) -> list[int]:
    """`eos_token_id` of one of the configuration files: an integer, a list of them, or absent."""
    value = _read_object(path).get("eos_token_id")
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if not all(type(i) is int and i >= 0 for i in ids):
        raise TokenizerError(f"{path}: eos_token_id {value!r} is neither a token id nor a list of them")
    return ids


def _named_tokens(config: dict[str, Any]) -> dict[str, str]:
    """`bos_token`, `eos_token` ... of tokenizer_config.json, each a string or an object with `content`."""
    named = {}
    for key, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(text, str):
            named[key] = text
    return named


def _bos_id(
    path: Path,
    backend: tokenizers.Tokenizer,
    config: dict[str, Any],
    named: dict[str, str],
    special: dict[str, int],
) -> int | None:
    """BOS as the post-processor of tokenizer.json adds it, unless `add_bos_token` says otherwise."""
    adds = config.get("add_bos_token")
    if adds is None:
        plain = backend.encode("a", add_special_tokens=False).ids
        processed = backend.encode("a").ids
        return int(processed[0]) if processed[:1] != plain[:1] else None
    if not adds:
        return None
    if named.get("bos_token") not in special:
        raise TokenizerError(
            f"{path.with_name('tokenizer_config.json')}: add_bos_token is set but bos_token "
            f"{named.get('bos_token')!r} is not a special token of {path.name}"
        )
    return special[named["bos_token"]]


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    """chat_template.jinja, else `chat_template` of tokenizer_config.json: a string, or a list of named
    ones of which "default" counts (or the only one)."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise TokenizerError(f"{path}: not UTF-8 text: {error}") from None
    template = config.get("chat_template")
    if template is None or isinstance(template, str):
        return template
    try:
        named = {entry["name"]: entry["template"] for entry in template}
    except (TypeError, KeyError):
        named = {}
    chosen = named.get("default", next(iter(named.values())) if len(named) == 1 else None)
    if not isinstance(chosen, str):
        raise TokenizerError(
            f"{folder / 'tokenizer_config.json'}: chat_template is neither a string nor a list of "
            '{"name", "template"} objects with one named "default"'
        )
    return chosen
