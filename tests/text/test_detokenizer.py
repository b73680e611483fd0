"""Incremental detokenisation."""

from __future__ import annotations

from itertools import pairwise

import demo
from hypothesis import given
from hypothesis import strategies as st

from outcrop.text.detokenizer import Detokenizer
from outcrop.text.tokenizer import load_tokenizer

# Mostly the 256 single bytes, so that characters are cut and broken in every way.
TOKENS = st.lists(st.one_of(st.integers(0, 255), st.integers(0, 3255)))


def cut(ids: list[int], cuts: list[int]) -> list[list[int]]:
    edges = [0, *sorted(c % (len(ids) + 1) for c in cuts), len(ids)]
    return [ids[a:b] for a, b in pairwise(edges)]


@given(ids=TOKENS, cuts=st.lists(st.integers(0, 100)))
def test_pushes_add_up_to_the_whole(small_tokenizer, ids: list[int], cuts: list[int]) -> None:
    detokenizer = Detokenizer(small_tokenizer)
    text = "".join(detokenizer.push(part) for part in cut(ids, cuts)) + detokenizer.finish()
    assert text == b"".join(map(small_tokenizer.token_bytes, ids)).decode("utf-8", "replace")


@given(text=st.text(), cuts=st.lists(st.integers(0, 100)))
def test_valid_text_never_shows_a_replacement(small_tokenizer, text: str, cuts: list[int]) -> None:
    detokenizer = Detokenizer(small_tokenizer)
    emitted = ""
    for part in cut(small_tokenizer.encode(text), cuts):
        emitted += detokenizer.push(part)
        assert text.startswith(emitted)
    assert emitted == text
    assert detokenizer.finish() == ""


def test_a_character_waits_for_its_last_byte(small_tokenizer) -> None:
    one_byte = {small_tokenizer.token_bytes(i): i for i in range(256)}
    face = [one_byte[bytes((byte,))] for byte in "😀".encode()]
    detokenizer = Detokenizer(small_tokenizer)
    assert [detokenizer.push([token]) for token in face] == ["", "", "", "😀"]
    assert detokenizer.push(face[:3]) == ""
    assert detokenizer.push([one_byte[b"x"]]) == "\ufffdx"
    assert detokenizer.push([one_byte[b"\xff"]]) == "\ufffd"
    assert detokenizer.push(face[:1]) == ""
    assert detokenizer.finish() == "\ufffd"


def test_control_tokens_and_padding_ids_are_silent(small_tokenizer) -> None:
    detokenizer = Detokenizer(small_tokenizer)
    ids = small_tokenizer.encode("hello")
    assert detokenizer.push([small_tokenizer.bos_id, *ids, small_tokenizer.eos_ids[0], 999_999]) == "hello"


def test_visible_control_tokens_appear_as_their_text_and_the_others_vanish() -> None:
    tokenizer = load_tokenizer(demo.PATH)
    special = tokenizer.special_tokens
    tokens = [special["<|im_start|>"], *tokenizer.encode("a é b"), special["<|im_end|>"]]
    detokenizer = Detokenizer(tokenizer, visible=("<|im_start|>", "<|nowhere|>"))
    assert "".join(detokenizer.push([token]) for token in tokens) == "<|im_start|>a é b"
    assert Detokenizer(tokenizer).push(tokens) == "a é b"
