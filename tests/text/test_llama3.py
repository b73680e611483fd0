"""Llama 3 against Meta's own code, from both layouts of its vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_models.datatypes import RawMessage
from llama_models.llama3.chat_format import ChatFormat
from llama_models.llama3.tokenizer import Tokenizer as MetaTokenizer

from outcrop.text.chat_template import ChatMessage, JinjaChatTemplate, Llama3ChatTemplate, load_chat_template
from outcrop.text.tokenizer import Tokenizer

# The essence of the template that Meta publishes with its Hugging Face checkpoints.
HF_TEMPLATE = (
    "{% for message in messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def meta(meta_folder: Path) -> MetaTokenizer:
    return MetaTokenizer(meta_folder / "tokenizer.model")


@pytest.fixture(scope="module", params=["meta_tokenizer", "hf_tokenizer"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Tokenizer)
    return found


def meta_prompt(meta: MetaTokenizer, conversation: list[tuple[str, str]]) -> list[int]:
    messages = [RawMessage(role=role, content=content) for role, content in conversation]
    return list(ChatFormat(meta).encode_dialog_prompt(messages).tokens)


def messages_of(conversation: list[tuple[str, str]]) -> list[ChatMessage]:
    return [ChatMessage(role, content) for role, content in conversation]


def test_vocabulary(tokenizer: Tokenizer, meta: MetaTokenizer) -> None:
    assert tokenizer.vocab_size == meta.n_words
    assert tokenizer.special_tokens == meta.special_tokens
    assert tokenizer.bos_id == meta.bos_id
    assert tokenizer.eos_ids == tuple(sorted(meta.stop_tokens))
    assert tokenizer.max_token_bytes == 128


def test_chat_prompt_is_metas(tokenizer, meta, meta_folder, all_conversations) -> None:
    template = load_chat_template(meta_folder, tokenizer)
    assert isinstance(template, Llama3ChatTemplate)
    assert len(all_conversations) == 50
    for conversation in all_conversations:
        assert template.encode(messages_of(conversation)) == meta_prompt(meta, conversation), conversation


def test_chat_prompt_of_the_published_template_is_metas(tokenizer, meta, all_conversations) -> None:
    template = JinjaChatTemplate(HF_TEMPLATE, tokenizer)
    for conversation in all_conversations:
        trimmed = [(role, content.strip()) for role, content in conversation]
        assert template.encode(messages_of(conversation)) == meta_prompt(meta, trimmed), conversation


@given(text=st.text())
def test_encode_is_metas(tokenizer, meta, text: str) -> None:
    assert tokenizer.encode(text) == meta.encode(text, bos=False, eos=False)


@given(
    pieces=st.lists(
        st.sampled_from(
            ["<|eot_id|>", "<|begin_of_text|>", "<|", "|>", "eot_id", " ", "\n\n", "hello", "<|x|>"]
        )
    )
)
def test_encode_prompt_is_metas_with_special_tokens(tokenizer, meta, pieces: list[str]) -> None:
    text = "".join(pieces)
    bos = not text.startswith("<|begin_of_text|>")
    assert tokenizer.encode_prompt(text) == meta.encode(text, bos=bos, eos=False, allowed_special="all")


@given(text=st.text())
def test_text_comes_back(tokenizer, text: str) -> None:
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode(text))) == text.encode()


@pytest.mark.parametrize(
    "text",
    [
        "a" * 60_000,
        " " * 60_000 + "x",
        "ab " * 20_000 + "漢" * 25_000 + " " + "漢" * 25_001 + "\n" * 50_000 + "!" * 75_000,
        "word " * 90_000,
    ],
    ids=["letters", "spaces", "runs at the limit", "more than one block"],
)
def test_long_runs_are_cut_as_meta_cuts_them(meta_tokenizer, meta, text: str) -> None:
    assert meta_tokenizer.encode(text) == meta.encode(text, bos=False, eos=False)


@pytest.mark.parametrize("run", ["a", " ", "漢", "\n", "<|"])
def test_a_million_characters_without_a_break(tokenizer, run: str) -> None:
    text = run * (1_000_000 // len(run))
    ids = tokenizer.encode(text)
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert len(ids) >= len(text.encode()) / tokenizer.max_token_bytes
