"""Calls and text in an answer, however it arrives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outcrop.text.tools import CallEnd, CallInput, CallStart, Piece, TextPiece, ToolParser

NAMES = ("f", "g", "get_weather", 'quo"te\\d é')

Answer = list[str | tuple[str, Any]]  # texts, and calls as (name, arguments)


def parse(answer: str, sizes: list[int] | None = None) -> tuple[Answer, bool]:
    """The answer in pushes of those sizes, then of 7: its texts and calls, and whether it is malformed."""
    parser, pieces = ToolParser(NAMES), list[Piece]()
    at, left = 0, list(sizes or [])
    while at < len(answer):
        size = left.pop(0) if left else 7
        pieces += parser.push(answer[at : at + size])
        at += size
    pieces += parser.finish()
    return assemble(pieces), parser.malformed


def assemble(pieces: list[Piece]) -> Answer:
    answer: Answer = []
    fragments: list[str] | None = None
    for piece in pieces:
        match piece:
            case TextPiece(text):
                assert text
                assert fragments is None
                if answer and isinstance(answer[-1], str):
                    answer[-1] += text
                else:
                    answer.append(text)
            case CallStart(name):
                assert fragments is None
                fragments = []
                answer.append((name, None))
            case CallInput(fragment):
                assert fragment
                assert fragments is not None
                fragments.append(fragment)
            case CallEnd():
                assert fragments is not None
                name = answer.pop()[0]
                answer.append((name, json.loads("".join(fragments))))
                fragments = None
    return answer


# Every form in which models write calls

CALL = '{"name": "f", "parameters": {"x": 1}}'
UNDERSTOOD: dict[str, Answer] = {
    CALL: [("f", {"x": 1})],
    '{"name":"f","arguments":{"x":1}}': [("f", {"x": 1})],
    '{"type": "function", "name": "f", "parameters": {"x": 1}}': [("f", {"x": 1})],
    '{"name": "f", "parameters": {"x": 1}, "type": "function", "id": "c1"}': [("f", {"x": 1})],
    '{"type": "function", "id": "c1", "function": {"name": "f", "arguments": {"x": 1}}}': [("f", {"x": 1})],
    '{"function": {"arguments": {"x": 1}, "name": "f"}}': [("f", {"x": 1})],
    '{"function": "f", "parameters": {"x": 1}}': [("f", {"x": 1})],
    '{"arguments": {"x": 1}, "name": "f"}': [("f", {"x": 1})],
    '{"name": "f"}': [("f", {})],
    '{\n    "name": "f",\n    "parameters": {\n        "x": 1\n    }\n}\n': [("f", {"x": 1})],
    f"```json\n{CALL}\n```": [("f", {"x": 1})],
    f"```\n[{CALL}]\n```\n": [("f", {"x": 1})],
    f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>{CALL}</tool_call>": [("f", {"x": 1})] * 2,
    f"<tool_call>[{CALL}, {CALL}]</tool_call>": [("f", {"x": 1})] * 2,
    f"<|python_tag|>{CALL}": [("f", {"x": 1})],
    f"<|python_tag|>{CALL}; {CALL}": [("f", {"x": 1})] * 2,
    f"{CALL}{CALL}\n{CALL},{CALL} ; {CALL}": [("f", {"x": 1})] * 5,
    '<|python_tag|>f.call(query="a b")': [("f", {"query": "a b"})],
    "<|python_tag|>f(x=1)": [("f", {"x": 1})],
    '<|python_tag|>[f(x=-1.5, y=[None, true]), g(z={"a": (1,)})]': [
        ("f", {"x": -1.5, "y": [None, True]}),
        ("g", {"z": {"a": [1]}}),
    ],
    "[get_weather(city='San Francisco', metric='celsius'), get_weather(city='Seattle')]": [
        ("get_weather", {"city": "San Francisco", "metric": "celsius"}),
        ("get_weather", {"city": "Seattle"}),
    ],
    r"""[f(a="\"(", b='it''s', c="\d\n)", d='''x
y''')]""": [("f", {"a": '"(', "b": "its", "c": "\\d\n)", "d": "x\ny"})],
    "[f()]": [("f", {})],
    f"I'll look.\n\n{CALL}": ["I'll look.", ("f", {"x": 1})],
    f"I call {CALL} now.": ["I call", ("f", {"x": 1}), "now."],
    f"{CALL}\n\nDone.": [("f", {"x": 1}), "Done."],
    f"first [1] {{a}} `b` <c> {CALL}": ["first [1] {a} `b` <c>", ("f", {"x": 1})],
    '{"name": "f", "parameters": {"s": "line\nbreak\t"}}': [("f", {"s": "line\nbreak\t"})],
    '{"name": "f", "parameters": {"x": 1}': [("f", {"x": 1})],
    '{"name": "f", "parameters": {}, {"name": "g", "parameters": {}}': [("f", {}), ("g", {})],
    '{"name": "quo\\"te\\\\d \\u00e9", "parameters": {}}': [(NAMES[3], {})],
    '{"name": "quo\\"te\\\\d é", "parameters": {}}': [(NAMES[3], {})],
}

NOT_CALLS = [
    "",
    "Hello, world.\n",
    " \n ",
    "[]",
    "{}",
    "{",
    "see [f] and {f} and f(x=1)",
    '{"name": "unknown", "parameters": {}}',
    '{"name": "f", "description": "Does it."}',
    '{"name": "f", "parameters": "x"}',
    '{"type": "object", "name": "f"}',
    '{"id": 1, "name": "f", "parameters": {}}',
    '{"parameters": {"x": 1}}',
    '{"arguments": {"x": 1, }, "name": "f"}',
    '{"name": "Ann", "children": [{"name": "Bob"}]}',
    "[f(1)]",
    "[f(x=y)]",
    "[f(**x)]",
    "[f(x=print(1))]",
    "[f(x={1})]",
    "[f(x=1e999)]",
    "[f(x=r'a')]",
    "[f(x=]",
    "```python\nf(x=1)\n```",
    "<tool>f</tool>",
    "<tool_call>f(x=1)</tool_call>",
    "a <| b",
    '{"na',
]


def encodings() -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(1, 12), max_size=60)


@pytest.mark.parametrize("answer", UNDERSTOOD)
def test_calls_are_understood(answer: str) -> None:
    assert parse(answer, [len(answer)]) == (UNDERSTOOD[answer], False)
    assert parse(answer, [1] * len(answer)) == (UNDERSTOOD[answer], False)


@pytest.mark.parametrize("text", NOT_CALLS)
def test_text_stays_text(text: str) -> None:
    for sizes in ([len(text)], [1] * len(text)):
        assert parse(text, sizes) == ([text] if text else [], False)


def test_code_behind_the_python_tag_is_text_without_the_tag() -> None:
    assert parse("<|python_tag|>print(1)") == (["print(1)"], False)


@pytest.mark.parametrize(
    "answer",
    [
        '{"name": "f", "parameters": {"x": ',
        '{"name": "f", "param',
        '{"name": "f"',
        '{"name": "f", "parameters": {"x": undefined}}',
        '{"name": "f", "parameters": {\'x\': 1}}',
        '{"name": "f", "parameters": {"x": 01}}',
        '{"name": "f", "parameters": {"x": 1,}}',
        '{"name": "f", "parameters": {"x": "\\x"}}',
        '{"name": "f", "parameters": {"x": "\\u12',
        '{"name": "f", "parameters": {"x": [1}}}',
        '{"name": "f", "parameters": {"x" 1}}',
        '{"name": "f", "parameters": {1: 1}}',
        '{"name": "f", "parameters": {"x": %s1' % ("[" * 300),
        '[f(x="a',
        "<|python_tag|>f(x=[1, 2",
    ],
)
def test_malformed(answer: str) -> None:
    for sizes in ([len(answer)], [1] * len(answer)):
        found, malformed = parse(answer, sizes)
        assert malformed
        assert found in ([], [("f", None)])
    before, malformed = parse(f"Text. {CALL} {answer}")
    assert malformed
    assert before[:2] == ["Text.", ("f", {"x": 1})]


def test_nothing_follows_a_malformed_call() -> None:
    parser = ToolParser(NAMES)
    parser.push('{"name": "f", "parameters": {"x": oops}')
    assert parser.malformed
    assert parser.push(CALL) == parser.finish() == []


# However it arrives

FRAGMENTS = st.sampled_from(
    [
        *UNDERSTOOD,
        *NOT_CALLS,
        " ",
        "\n",
        "{",
        "[",
        "<",
        "`",
        '"',
        "}",
        "]",
        "f(",
        "<|python_tag|>",
        "word",
        "é",
    ]
)


@given(parts=st.lists(FRAGMENTS, max_size=6), cut=st.integers(0, 100), sizes=encodings())
def test_cuts_make_no_difference(parts: list[str], cut: int, sizes: list[int]) -> None:
    answer = "".join(parts)
    answer = answer[: max(len(answer) - cut, 0)]
    assert parse(answer, sizes) == parse(answer, [len(answer)])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
CALLS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.dictionaries(st.text(), JSON, max_size=4)), min_size=1, max_size=3
)


@given(
    calls=CALLS, indent=st.none() | st.integers(0, 4), sizes=encodings(), ascii=st.booleans(), data=st.data()
)
def test_calls_come_back(calls, indent, sizes, ascii, data) -> None:
    key = data.draw(st.sampled_from(["parameters", "arguments"]))
    separator = data.draw(st.sampled_from(["", "; ", ", ", "\n", "\n\n"]))
    written = [
        json.dumps({"name": name, key: arguments}, indent=indent, ensure_ascii=ascii)
        for name, arguments in calls
    ]
    assert parse("Text." + separator.join(["", *written]), sizes)[0][-len(calls) :] == calls


@given(calls=CALLS, sizes=encodings())
def test_python_calls_come_back(calls, sizes) -> None:
    written = []
    expected = []
    for i, (_, arguments) in enumerate(calls):
        named = {f"a{j}": value for j, value in enumerate(arguments.values())}
        known = NAMES[i]
        written.append(f"{known}({', '.join(f'{k}={v!r}' for k, v in named.items())})")
        expected.append((known, named))
    assert parse(f"[{', '.join(written)}]", sizes) == (expected, False)


# Streaming


def test_text_is_not_held_back() -> None:
    parser = ToolParser(NAMES)
    assert parser.push("Hello") == [TextPiece("Hello")]
    assert parser.push(" ") == []
    assert parser.push("world {") == [TextPiece(" world")]
    assert parser.push('"na') == []
    assert parser.push("x") == [TextPiece(' {"nax')]
    assert parser.push("\n") == []
    assert parser.finish() == [TextPiece("\n")]


def test_arguments_are_streamed() -> None:
    parser = ToolParser(NAMES)
    assert parser.push('{"name": "f", "parameters": ') == []
    assert parser.push("{") == [CallStart("f"), CallInput("{")]
    assert parser.push('"x": "a') == [CallInput('"x": "a')]
    assert parser.push("\n") == [CallInput("\\n")]
    assert parser.push("b\\") == [CallInput("b\\")]
    assert parser.push('""}') == [CallInput('""}'), CallEnd()]
    assert parser.push("}") == parser.finish() == []
    assert not parser.malformed


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        "[",
        "`",
        "<",
        " ",
        "```json\n",
        "<tool_call>",
        "[f(",
        '{"name": "',
        '{"arguments": ',
        CALL,
        "word ",
    ],
)
def test_memory_is_bounded(unit: str) -> None:
    parser = ToolParser(NAMES)
    answer = unit * (100_000 // len(unit))
    held = 0
    for at in range(0, len(answer), 1_000):
        parser.push(answer[at : at + 1_000])
        held = max(held, len(parser._text))
    parser.finish()
    assert held < 70_000
