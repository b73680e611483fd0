"""Jinja chat templates: what content cannot do, what templates cannot do."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from outcrop.text.chat_template import ChatMessage, ChatTemplateError, JinjaChatTemplate, load_chat_template
from outcrop.text.template_sandbox import SandboxedTemplate
from outcrop.text.tokenizer import load_tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"
)
LOUD = CHATML.replace("m.content", "(m.content | trim | lower | replace(' ', ''))")


def controls(tokenizer, ids: list[int]) -> list[str]:
    names = {i: name for name, i in tokenizer.special_tokens.items()}
    return [names[i] for i in ids if i in names]


def spelled(tokenizer, ids: list[int]) -> str:
    return b"".join(map(tokenizer.token_bytes, ids)).decode()


# What content cannot do


@pytest.mark.parametrize("source", [CHATML, LOUD], ids=["as is", "a template that rewrites content"])
def test_content_never_becomes_a_control_token(demo_tokenizer, source: str) -> None:
    template = JinjaChatTemplate(source, demo_tokenizer)
    fragments = [
        "<|im_end|>",
        "<|IM_END|>",
        "<|im_ end|>",
        "<|im_",
        "end|>",
        "<",
        "|",
        "\n",
        " ",
        "é",
        "\ufdd0",
    ]

    @given(
        messages=st.lists(
            st.builds(
                ChatMessage,
                role=st.sampled_from(["system", "user", "assistant"]),
                content=st.lists(st.sampled_from(fragments)).map("".join),
            )
        )
    )
    def check(messages: list[ChatMessage]) -> None:
        ids = template.encode(messages)
        assert controls(demo_tokenizer, ids) == ["<|im_start|>", "<|im_end|>"] * len(messages) + [
            "<|im_start|>"
        ]
        if source is CHATML:
            turns = "".join(f"{m.role}\n{m.content}\n" for m in messages)
            assert spelled(demo_tokenizer, ids) == f"{turns}assistant\n"

    check()


def test_content_cannot_complete_a_token_that_the_template_begins(demo_tokenizer) -> None:
    template = JinjaChatTemplate("<|im_{{ messages[0].content }}|>", demo_tokenizer)
    ids = template.encode([ChatMessage("user", "end")])
    assert controls(demo_tokenizer, ids) == []
    assert spelled(demo_tokenizer, ids) == "<|im_end|>"


def test_pieces_between_control_tokens_are_encoded_whole(demo_tokenizer) -> None:
    template = JinjaChatTemplate("hel{{ messages[0].content }}rld<|im_end|>", demo_tokenizer)
    ids = template.encode([ChatMessage("user", "lo wo")])
    assert ids == demo_tokenizer.encode_prompt("hello world<|im_end|>")


def test_white_space_around_content_can_be_trimmed(demo_tokenizer) -> None:
    template = JinjaChatTemplate(
        "[{{ messages[0].content | trim }}]{{ messages[0].content }}", demo_tokenizer
    )
    assert spelled(demo_tokenizer, template.encode([ChatMessage("user", " \n x y\t ")])) == "[x y] \n x y\t "


def test_role_must_be_an_identifier() -> None:
    with pytest.raises(ValueError, match="is not an identifier"):
        ChatMessage("system<|im_end|>", "")


def test_template_that_takes_content_apart_is_refused(demo_tokenizer) -> None:
    template = JinjaChatTemplate("{{ messages[0].content[:3] }}", demo_tokenizer)
    with pytest.raises(ChatTemplateError, match="takes a message's content apart"):
        template.encode([ChatMessage("user", "hello")])
    template = JinjaChatTemplate("{{ messages[0].content[1:] }}", demo_tokenizer)
    with pytest.raises(ChatTemplateError, match="takes a message's content apart"):
        template.encode([ChatMessage("user", "hello")])


def test_noncharacters(demo_tokenizer) -> None:
    template = JinjaChatTemplate("\ufdd0{{ messages[0].content }}", demo_tokenizer)
    held = "".join(map(chr, range(0xFDD1, 0xFDEE)))
    assert spelled(demo_tokenizer, template.encode([ChatMessage("user", held)])) == "\ufdd0" + held
    with pytest.raises(ChatTemplateError, match="noncharacters"):
        template.encode([ChatMessage("user", held + "\ufdee")])


# BOS


@pytest.mark.parametrize("prefix", ["", "{{ bos_token }}", "{{ bos_token }}<|begin_of_text|>"])
def test_bos_exactly_once(small_hf_folder: Path, prefix: str) -> None:
    tokenizer = load_tokenizer(small_hf_folder)
    ids = JinjaChatTemplate(prefix + "{{ messages[0].content }}", tokenizer).encode(
        [ChatMessage("user", "hi")]
    )
    assert ids == [tokenizer.bos_id, *tokenizer.encode("hi")]


def test_no_bos_where_the_model_uses_none(demo_tokenizer) -> None:
    ids = JinjaChatTemplate(CHATML, demo_tokenizer).encode([ChatMessage("user", "hi")])
    assert ids == demo_tokenizer.encode_prompt("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")


# Jinja as transformers sets it up


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}\n  {% if m.role == 'user' %}\n {{ m.content }}\n  {% endif %}\n{% endfor %}",
        "{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ loop.length }}{% endfor %}",
        "{% for m in messages %}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.revindex }}{% endfor %}",
        "{% for m in messages if m.role == 'user' %}{{ loop.index }}{% else %}none{% endfor %}",
        "{{ messages | tojson }}{{ {'b': '<é>', 'a': [1, none]} | tojson(indent=2, sort_keys=true) }}",
        "{% generation %}{{ messages[0].content }}{% endgeneration %}",
        "{{ tools is none }}{{ documents is defined }}{{ absent is defined }}{{ add_generation_prompt }}",
        "{% set n = namespace(v=0) %}{% for i in [1, 2] %}{% set n.v = n.v + i %}{% endfor %}{{ n.v ~ 'x' }}",
        "{% for i in range(3) %}{% for c in 'ab' * 2 %}{{ c ~ i }}{% endfor %}{% endfor %}{{ 2 ** 10 }}",
        "{% macro say(x) %}[{{ x | trim }}]{% endmacro %}{{ say(messages[0].content) }}{{ [1, 2] + [3] }}",
        "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k ~ v }}{% endfor %}{% for x in no %}{% endfor %}",
    ],
)
def test_renders_as_transformers_does(source: str) -> None:
    messages = [{"role": "user", "content": " hé <b> "}, {"role": "assistant", "content": "y"}]
    variables = {"tools": None, "documents": None, "add_generation_prompt": True}
    (expected,), _ = render_jinja_template([messages], chat_template=source, **variables)
    assert SandboxedTemplate(source).render({"messages": messages, **variables}, 10_000) == expected


def test_strftime_now() -> None:
    before = datetime.now().date()
    rendered = SandboxedTemplate("{{ strftime_now('%Y-%m-%d') }}").render({}, 10)
    assert before <= datetime.fromisoformat(rendered).date() <= datetime.now().date()


def test_raise_exception_reaches_the_caller(demo_tokenizer) -> None:
    template = JinjaChatTemplate("{{ raise_exception('roles must alternate') }}", demo_tokenizer)
    with pytest.raises(ChatTemplateError, match="refuses this conversation: roles must alternate"):
        template.encode([ChatMessage("user", "hi")])


# What templates cannot do

DOUBLING = "{{% set n = namespace(v=2) %}}{{% for a in range(9999) %}}{{% set n.v = {} %}}{{% endfor %}}"
ENDLESS = {
    "nested ranges": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "one huge range": "{% for a in range(10 ** 9) %}{% endfor %}",
    "ranges in filters": "{% for a in range(99999) %}{{ range(99999) | list | length }}{% endfor %}",
    "branching recursion": "{% macro f(n) %}{{ f(n-1) ~ f(n-1) if n }}{% endmacro %}{{ f(60) }}",
    "deep recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "long output": "{% for a in range(9999) %}{{ 'x' * 10000 }}{% endfor %}",
    "repeated string": "{{ 'x' * 10 ** 10 }}",
    "repeated list": "{{ 10 ** 9 * [1] }}",
    "tower of powers": "{{ 9 ** (9 ** 9) }}",
    "growing integer": DOUBLING.format("n.v * 99"),
    "growing string by ~": DOUBLING.format("n.v ~ n.v"),
    "growing string by +": DOUBLING.format("(n.v | string) + (n.v | string)"),
    "growing list": DOUBLING.format("[n.v] + [n.v] * 99999"),
    "copying": "{% set v = 'x' * 9999999 %}{% for a in range(99999) %}{% set w = v ~ '' %}{% endfor %}",
}


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS)
def test_endless_templates_end(demo_tokenizer, source: str) -> None:
    template = JinjaChatTemplate(source, demo_tokenizer)
    with pytest.raises(
        ChatTemplateError, match=r"too many steps|too large|renders more|Range too big|RecursionError"
    ):
        template.encode([ChatMessage("user", "hi")])


def test_long_conversations_have_the_steps_they_need(demo_tokenizer) -> None:
    messages = [ChatMessage("user", "x")] * 3_000
    assert len(controls(demo_tokenizer, JinjaChatTemplate(CHATML, demo_tokenizer).encode(messages))) == 6_001


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__.keys() }}",
        "{{ messages[0]['content'] + 1 }}",
        "{{ 1 / 0 }}",
        "{% include 'other' %}",
    ],
)
def test_templates_that_fail(demo_tokenizer, source: str) -> None:
    template = JinjaChatTemplate(source, demo_tokenizer)
    with pytest.raises(ChatTemplateError, match=r"the model's chat template (refuses|fails)"):
        template.encode([ChatMessage("user", "hi")])


@pytest.mark.parametrize(
    "source", ["{% for %}", "{{", "{% for a in b recursive %}{% endfor %}", "{{ x | nofilter }}"]
)
def test_not_a_template(demo_tokenizer, demo_path, source: str) -> None:
    with pytest.raises(ChatTemplateError, match="not valid Jinja"):
        JinjaChatTemplate(source, demo_tokenizer)
    with pytest.raises(jinja2.TemplateError):
        SandboxedTemplate(source)


# Loading


def test_broken_template_names_the_checkpoint(small_hf_folder: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((small_hf_folder / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(ChatTemplateError, match=re.escape(str(tmp_path))):
        load_chat_template(tmp_path, load_tokenizer(tmp_path))


def test_no_template_and_not_llama_3(write_small_gguf) -> None:
    path = write_small_gguf(token_type=[1] * 3256)
    with pytest.raises(ChatTemplateError, match="no chat template, and no token"):
        load_chat_template(path, load_tokenizer(path))


def test_template_of_tokenizer_config_is_used(small_hf_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((small_hf_folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": "{{ messages[0].content }}!"})
    )
    tokenizer = load_tokenizer(tmp_path)
    ids = load_chat_template(tmp_path, tokenizer).encode([ChatMessage("user", "hi")])
    assert ids == [tokenizer.bos_id, *tokenizer.encode("hi!")]
