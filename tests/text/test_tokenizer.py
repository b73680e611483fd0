"""What every layout has in common, and what is refused."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers

from outcrop.text.base import well_formed
from outcrop.text.tokenizer import Tokenizer, TokenizerError, load_tokenizer

ANY_TEXT = st.text(st.characters(codec=None, categories=None))  # lone surrogates too


@pytest.fixture
def folder(small_hf_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_hf_folder, tmp_path / "checkpoint"))


def edit(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | changes))


@pytest.fixture(params=["tiktoken", "tokenizer.json", "gguf"])
def small(request, small_model_file, small_hf_folder, write_small_gguf) -> Tokenizer:
    match request.param:
        case "tiktoken":
            return load_tokenizer(small_model_file.parent)
        case "tokenizer.json":
            return load_tokenizer(small_hf_folder)
        case _:
            return load_tokenizer(write_small_gguf())


def test_layouts_agree(small: Tokenizer, small_tokenizer: Tokenizer) -> None:
    assert small.vocab_size == small_tokenizer.vocab_size == 3256
    assert small.special_tokens == small_tokenizer.special_tokens
    assert small.bos_id == small_tokenizer.bos_id
    assert small.eos_ids == small_tokenizer.eos_ids
    assert small.max_token_bytes == small_tokenizer.max_token_bytes
    every_id = range(-1, small.vocab_size + 2)
    assert [*map(small.token_bytes, every_id)] == [*map(small_tokenizer.token_bytes, every_id)]

    @given(text=ANY_TEXT)
    def same_ids(text: str) -> None:
        assert small.encode(text) == small_tokenizer.encode(text)
        assert small.encode_prompt(text) == small_tokenizer.encode_prompt(text)
        assert b"".join(map(small.token_bytes, small.encode(text))) == well_formed(text).encode()

    same_ids()


def test_special_token_text_stays_text(small: Tokenizer) -> None:
    control = set(small.special_tokens.values())
    for name in small.special_tokens:
        ids = small.encode(f"a{name}b {name}")
        assert control.isdisjoint(ids)
        assert b"".join(map(small.token_bytes, ids)).decode() == f"a{name}b {name}"
        assert small.encode_prompt(name)[-1] == small.special_tokens[name]
        assert small.token_bytes(small.special_tokens[name]) == b""


def test_bos_comes_once(small: Tokenizer) -> None:
    begin = small.special_tokens["<|begin_of_text|>"]
    assert small.encode_prompt("") == [begin]
    assert small.encode_prompt("hi") == [begin, *small.encode("hi")]
    assert small.encode_prompt("<|begin_of_text|>hi") == [begin, *small.encode("hi")]


@pytest.mark.parametrize(
    ("text", "expected"), [("a\ud800b", "a\ufffdb"), ("\ud83d\ude00", "😀"), ("\udc00", "\ufffd"), ("é", "é")]
)
def test_surrogates(small: Tokenizer, text: str, expected: str) -> None:
    assert well_formed(text) == expected
    assert small.encode(text) == small.encode(expected)


# Hugging Face: the files beside tokenizer.json


def test_end_of_turn_ids_come_from_every_file(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=[5, 6])
    edit(folder / "config.json", eos_token_id=7)
    edit(folder / "tokenizer_config.json", eos_token="<|reserved_special_token_9|>")
    tokenizer = load_tokenizer(folder)
    special = tokenizer.special_tokens
    named = {special[name] for name in ("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>")}
    assert set(tokenizer.eos_ids) == {5, 6, 7, special["<|reserved_special_token_9|>"]} | named


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain", "plain"),
        ([{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}], "yes"),
        ([{"name": "only", "template": "this"}], "this"),
    ],
)
def test_chat_template_of_tokenizer_config(folder: Path, template: object, expected: str) -> None:
    edit(folder / "tokenizer_config.json", chat_template=template)
    assert load_tokenizer(folder).chat_template == expected
    (folder / "chat_template.jinja").write_text("a file of its own")
    assert load_tokenizer(folder).chat_template == "a file of its own"


def test_add_bos_token_overrides_the_post_processor(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", add_bos_token=False)
    assert load_tokenizer(folder).bos_id is None
    edit(folder / "tokenizer_config.json", add_bos_token=True, bos_token="<|step_id|>")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.bos_id == tokenizer.special_tokens["<|step_id|>"]


def test_added_tokens_that_are_not_special_are_text(folder: Path) -> None:
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    token = added[0] | {"id": 3256, "content": "<think>", "special": False}
    edit(folder / "tokenizer.json", added_tokens=[*added, token])
    tokenizer = load_tokenizer(folder)
    assert tokenizer.vocab_size == 3257
    assert tokenizer.encode("a<think>")[1:] == [3256]
    assert tokenizer.token_bytes(3256) == b"<think>"


def test_truncation_and_padding_of_the_file_are_ignored(folder: Path) -> None:
    path = folder / "tokenizer.json"
    backend = tokenizers.Tokenizer.from_file(str(path))
    backend.enable_truncation(4)
    backend.enable_padding(length=64)
    backend.save(str(path))
    tokenizer = load_tokenizer(folder)
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode("x" * 99))) == b"x" * 99


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"eos_token_id": "two"}, "eos_token_id 'two'"),
        ("generation_config.json", {"eos_token_id": [1, True]}, "neither a token id nor a list"),
        ("tokenizer_config.json", {"chat_template": [{"name": "a"}]}, "chat_template is neither"),
        ("tokenizer_config.json", {"add_bos_token": True, "bos_token": "<s>"}, "bos_token '<s>' is not"),
    ],
)
def test_bad_configuration_is_named(folder: Path, file: str, changes: dict, message: str) -> None:
    edit(folder / file, **changes)
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(folder)
    assert file in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_broken_json_is_named(folder: Path, content: str) -> None:
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(
        TokenizerError, match=r"tokenizer_config\.json: (not valid JSON|expected a JSON object)"
    ):
        load_tokenizer(folder)


def test_template_that_is_not_text(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(TokenizerError, match=r"chat_template\.jinja: not UTF-8"):
        load_tokenizer(folder)


def unigram(backend: tokenizers.Tokenizer) -> None:
    backend.model = models.Unigram([("a", 0.0)], unk_id=0, byte_fallback=False)


def lower_case(backend: tokenizers.Tokenizer) -> None:
    backend.normalizer = normalizers.Lowercase()


def metaspace(backend: tokenizers.Tokenizer) -> None:
    backend.pre_tokenizer = pre_tokenizers.Metaspace()


def empty(backend: tokenizers.Tokenizer) -> None:
    backend.model = models.BPE()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unigram, "model type Unigram"),
        (lower_case, "normalizer Lowercase"),
        (metaspace, "pre_tokenizer is not byte-level"),
        (empty, "vocabulary is empty"),
    ],
)
def test_unsupported_tokenizer_json(folder: Path, change, message: str) -> None:
    path = folder / "tokenizer.json"
    backend = tokenizers.Tokenizer.from_file(str(path))
    change(backend)
    backend.save(str(path))
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(folder)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b"\xff\xfe"])
def test_broken_tokenizer_json(folder: Path, content: bytes) -> None:
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: cannot be read"):
        load_tokenizer(folder)


def test_forgeable_control_token_is_refused(folder: Path) -> None:
    """A vocabulary that spells a control token with an ordinary merge would let users write it."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    word = next(
        token for token in content["model"]["vocab"] if token.isascii() and token.isalpha() and token[3:]
    )
    content["added_tokens"].append(
        content["added_tokens"][0] | {"id": content["model"]["vocab"][word], "content": word}
    )
    path.write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match=f"'{word}' would encode to a control token"):
        load_tokenizer(folder)


# Meta's tokenizer.model


def rank_lines(count: int) -> list[bytes]:
    return [base64.b64encode(bytes((i,))) + b" %d" % i for i in range(count)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([b"\x0a\x0e\n\x05<unk>\x15\x00"], "line 1 is not a base64 token"),
        ([*rank_lines(256), b"YWI= many"], "line 257 is not"),
        ([*rank_lines(256), b"?? 256"], "line 257 is not"),
        (rank_lines(255), "no token for byte 0xff"),
        ([*rank_lines(256), b"YWI= 300"], "ranks are not 0 to 256"),
        ([], "no token for byte 0x00"),
    ],
    ids=["sentencepiece", "rank", "base64", "truncated", "gap", "empty"],
)
def test_broken_rank_file(tmp_path: Path, lines: list[bytes], message: str) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert str(path) in str(caught.value)


# GGUF


def test_gguf_token_ids_and_bos(write_small_gguf) -> None:
    tokenizer = load_tokenizer(
        write_small_gguf(add_bos_token=False, eot_token_id=40, eom_token_id=41, eos_token_id=42)
    )
    assert tokenizer.bos_id is None
    assert {40, 41, 42} < set(tokenizer.eos_ids)
    assert tokenizer.named_tokens["bos_token"] == "<|begin_of_text|>"


def test_llama_vocabulary_comes_before_merges(write_small_gguf, small_tokenizer) -> None:
    """As in tiktoken, a piece that is a token is that token, whether or not merges lead to it."""
    tokenizer = load_tokenizer(write_small_gguf(merges=["Ġ t"]))
    assert tokenizer.encode(" the that") == small_tokenizer.encode(" the that")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "llama"}, "model 'llama'.*Supported: model 'gpt2' with pre 'llama-bpe' or 'smollm'"),
        ({"pre": "qwen2"}, "pre 'qwen2'"),
        ({"pre": None}, "pre None"),
        ({"tokens": None}, r"tokenizer\.ggml\.tokens is missing"),
        ({"merges": ["x"]}, "merges does not fit"),
        ({"merges": ["zzzz yyyy"]}, "merges does not fit"),
        ({"token_type": [1, 1]}, "one entry per token"),
        ({"bos_token_id": 99_999}, "bos_token_id is 99999; the vocabulary has 3256"),
    ],
)
def test_unsupported_gguf(write_small_gguf, changes: dict, message: str) -> None:
    path = write_small_gguf(**changes)
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(path)
    assert str(path) in str(caught.value)


def test_truncated_gguf(write_small_gguf) -> None:
    path = write_small_gguf()
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(TokenizerError, match="truncated"):
        load_tokenizer(path)


# Nothing there


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no tokenizer found\. Supported: a folder with"):
        load_tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match="No such file"):
        load_tokenizer(tmp_path / "missing.gguf")
    with pytest.raises(TokenizerError, match="no tokenizer found"):
        load_tokenizer(tmp_path / "missing")
