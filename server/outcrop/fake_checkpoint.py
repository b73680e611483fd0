"""A checkpoint without weights, for the fake backend: a Llama 3 tokenizer that is made, not downloaded."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from tokenizers import pre_tokenizers

from outcrop.text import llama3

_CONSONANTS, _VOWELS, _ENDINGS = "bdfgklmnprstvz", "aeiou", ("", "n", "r")
_SPACE = "Ġ"  # in the byte-level alphabet


def write_fake_checkpoint(folder: Path) -> Path:
    """Write what a tokenizer needs into `folder`, and return it.

    Every text can be encoded, a token a byte. What the fake backend answers is mostly made-up words, for
    they are nearly all of the vocabulary (encoding never yields one: there are no merges); and it answers
    with some 60 of them, since every reserved control token ends a turn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    syllables = ["".join(pair) for pair in itertools.product(_CONSONANTS, _VOWELS)]
    words = (_SPACE + "".join(parts) for parts in itertools.product(syllables, syllables, _ENDINGS))
    entries = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *words]
    special = llama3.special_tokens(len(entries))
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": number, "content": text} | flags for text, number in special.items()],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {text: number for number, text in enumerate(entries)},
            "merges": [],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    ends = [number for text, number in special.items() if "reserved" in text or text == llama3.END_OF_TURN]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    names = {"bos_token": llama3.BEGIN_OF_TEXT, "eos_token": llama3.END_OF_TURN, "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder
