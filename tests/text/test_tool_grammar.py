"""Random walks through the grammars of tools: whatever they allow is a call that the tool can take."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import llguidance
import numpy as np
import pytest

from outcrop.text.grammar import GrammarCompiler
from outcrop.text.tools import (
    ANY,
    AUTO,
    CallEnd,
    CallInput,
    CallStart,
    TextPiece,
    Tool,
    ToolChoice,
    ToolFormat,
)

END = 256
FORMAT = ToolFormat()


class Bytes:
    """A vocabulary of single bytes."""

    eos_token_id = END
    bos_token_id = None
    tokens = [bytes([byte]) for byte in range(END)] + [b"<end>"]
    special_token_ids = [END]  # noqa: RUF012

    def __call__(self, text: str) -> list[int]:
        return list(text.encode())


@pytest.fixture(scope="module")
def tokenizer() -> llguidance.LLTokenizer:
    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))


def walk(tokenizer: llguidance.LLTokenizer, grammar: str, dice: random.Random, lead: str = "") -> str:
    """A random answer that the grammar allows, that begins with `lead` and soon ends."""
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    answer = lead.encode()
    assert all(matcher.consume_token(byte) for byte in answer), matcher.get_error()
    while True:
        mask = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        allowed = [int(token) for token in np.flatnonzero(np.unpackbits(mask, bitorder="little")[: END + 1])]
        assert allowed, matcher.get_error()
        if END in allowed and (len(allowed) == 1 or dice.random() < 0.3):
            return answer.decode()
        ending = [token for token in allowed if token in map(ord, '"}]')]
        token = dice.choice(ending if ending and dice.random() < 0.4 else [t for t in allowed if t != END])
        answer += bytes([token])
        assert matcher.consume_token(token), matcher.get_error()


def calls_in(answer: str, tools: list[Tool]) -> tuple[str, list[tuple[str, Any]]]:
    """The text of an answer and its calls with their arguments. It must not be malformed."""
    parser = FORMAT.parser(tools)
    text, calls, fragments = "", [], ""
    for piece in [*parser.push(answer), *parser.finish()]:
        match piece:
            case TextPiece(more):
                text += more
            case CallStart(name):
                calls.append((name, None))
                fragments = ""
            case CallInput(fragment):
                fragments += fragment
            case CallEnd():
                calls[-1] = (calls[-1][0], json.loads(fragments))
    assert not parser.malformed, answer
    return text, calls


def check(answer: str, tools: list[Tool], only_strict: bool = False) -> list[str]:
    """All calls are of known tools, with arguments that their schemas allow. Returns their names."""
    schemas = {tool.name: tool.schema for tool in tools if tool.strict or not only_strict}
    _, calls = calls_in(answer, tools)
    for name, arguments in calls:
        assert isinstance(arguments, dict)
        jsonschema.Draft202012Validator(schemas.get(name, {})).validate(arguments)
    return [name for name, _ in calls]


# Random tools

NAMES = ["get_weather", "f", "a-b", "name", "auto", "x" * 64, "<|eot_id|>", 'quo"te\\', "größe", "a/b.*"]


def schema(dice: random.Random, depth: int = 0) -> dict[str, Any]:
    kind = dice.choice(
        ["integer", "number", "boolean", "string", "enum", "any", "null", "pattern"]
        + (["object", "object", "array", "anyOf", "ref"] if depth < 3 else [])
    )
    match kind:
        case "integer":
            low = dice.randint(-100, 100)
            return {"type": "integer", **dice.choice([{}, {"minimum": low, "maximum": low + 50}])}
        case "string":
            return {
                "type": "string",
                **dice.choice([{}, {"maxLength": dice.randint(0, 9)}, {"format": "date"}]),
            }
        case "enum":
            return {"enum": dice.sample(["a", "<|eot_id|>", 1, None, True, "}", '"', "é"], 3)}
        case "any":
            return {}
        case "pattern":
            return {"type": "string", "pattern": dice.choice(["^[a-f]{2,5}$", r"^\d+-\d+$"])}
        case "object":
            return object_schema(dice, depth + 1)
        case "array":
            return {"type": "array", "items": schema(dice, depth + 1), "maxItems": dice.randint(0, 3)}
        case "anyOf":
            return {"anyOf": [schema(dice, depth + 1), schema(dice, depth + 1)]}
        case "ref":
            return {"$ref": "#/$defs/shared"}
        case simple:
            return {"type": simple}


def object_schema(dice: random.Random, depth: int = 0) -> dict[str, Any]:
    names = dice.sample(["x", "name", "parameters", "type", "größe", 'q"', "<|eot_id|>"], dice.randint(0, 4))
    made: dict[str, Any] = {
        "type": "object",
        "properties": {name: schema(dice, depth + 1) for name in names},
        "required": dice.sample(names, dice.randint(0, len(names))),
    }
    if dice.random() < 0.4:
        made["additionalProperties"] = dice.choice([False, True, {"type": "integer"}])
    if depth == 0:
        made["$defs"] = {"shared": {"type": "object", "properties": {"s": {"type": "string"}}}}
    return made


def random_tools(dice: random.Random) -> list[Tool]:
    return [
        Tool(name, "", object_schema(dice), strict=dice.random() < 0.5)
        for name in dice.sample(NAMES, dice.randint(1, 4))
    ]


@pytest.mark.parametrize(
    "seeds",
    [range(30), pytest.param(range(30, 230), marks=pytest.mark.slow)],
    ids=["thirty", "two hundred more"],
)
def test_whatever_a_grammar_allows_can_be_called(tokenizer, seeds: range) -> None:
    for seed in seeds:
        dice = random.Random(seed)
        tools = random_tools(dice)
        some = check(walk(tokenizer, FORMAT.grammar(tools, ANY), dice), tools)
        assert some
        name = dice.choice(tools).name
        assert check(walk(tokenizer, FORMAT.grammar(tools, ToolChoice("tool", name)), dice), tools) == [name]
        if grammar := FORMAT.grammar(tools):
            check(walk(tokenizer, grammar, dice), tools, only_strict=True)
            called = dice.choice(tools).name
            lead = f'Sure: {{"name": {json.dumps(called)}, "parameters": '
            answer = walk(tokenizer, grammar, dice, lead)
            assert check(answer, tools, only_strict=True)[0] == called
            assert calls_in(answer, tools)[0] == "Sure:"


# Free text beside strict tools

STRICT = Tool("f", "", {"properties": {"x": {"type": "integer"}}, "required": ["x"]}, strict=True)
LOOSE = Tool("g", "", {"properties": {"y": {"type": "integer"}}, "required": ["y"]})
CALL = '{"name": "f", "parameters": {"x": 1}}'


def allows(tokenizer: llguidance.LLTokenizer, grammar: str, answer: str) -> bool:
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
    return all(matcher.consume_token(byte) for byte in answer.encode()) and matcher.is_accepting()


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Hello. [1] {a} `b`",
        '{"name": "Ann", "id": 1}',
        '{"type": "object"}',
        CALL,
        f"I'll look.\n\n{CALL}",
        f"{CALL}\n{CALL}; {CALL}",
        '{"name": "g", "parameters": {"z": []}}',
        '{"name": "h", "parameters": {}}',
    ],
)
def test_auto_allows(tokenizer, answer: str) -> None:
    assert allows(tokenizer, FORMAT.grammar([STRICT, LOOSE], AUTO), answer)


@pytest.mark.parametrize(
    "answer",
    [
        '{"name": "f", "parameters": {"x": "1"}}',
        '{"name": "f", "parameters": {}}',
        '{"name": "f", "arguments": {"x": "1"}}',
        '{ "name" : "f", "parameters": {"x": "1"}}',
        '{"type": "function", "function": {"name": "f", "parameters": {}}}',
        '{"function": "f", "parameters": {}}',
        '{"parameters": {}, "name": "f"}',
        'Text {"name": "f"}',
        '[f(x="1")]',
        '<|python_tag|>f(x="1")',
        f"{CALL} and text",
        '{"name": "g", "parameters": []}',
    ],
)
def test_auto_refuses(tokenizer, answer: str) -> None:
    """All these the parser takes for calls, but for the last two."""
    assert not allows(tokenizer, FORMAT.grammar([STRICT, LOOSE], AUTO), answer)


def test_text_never_holds_a_call(tokenizer) -> None:
    """The grammar's idea of where calls begin is the parser's: no text that it allows alone has a call."""
    grammar = FORMAT.grammar([STRICT], AUTO)
    parts = [
        "word",
        "<|python_tag|>",
        "<tool_call>",
        "```json",
        "f(x=1)",
        "f.call(",
        '{"x": "1"}',
        *"{[ \n:,}])",
    ]
    parts += ['"name"', '"type"', '"parameters"', '"f"', '"function"', "{}"]
    dice = random.Random(0)
    refused = 0
    for _ in range(400):
        text = "".join(dice.choices(parts, k=dice.randint(1, 12)))
        if allows(tokenizer, grammar, text):
            check(text, [STRICT])
        else:
            refused += 1
    assert 10 < refused < 360


def test_many_strict_tools(demo_tokenizer) -> None:
    """Within the compiler's limits on work, at each token of an answer."""
    tools = [Tool(f"tool_number_{i}", "", STRICT.schema, strict=True) for i in range(100)]
    matcher = GrammarCompiler(demo_tokenizer).matcher(FORMAT.grammar(tools, AUTO))
    mask = np.empty(-(-demo_tokenizer.vocab_size // 32), dtype=np.int32)
    answer = 'I see {"a": [1], "name": "Ann"}.\n\n{"name": "tool_number_77", "parameters": {"x": 12}}'
    for token in demo_tokenizer.encode(answer):
        matcher.fill(mask)
        assert mask[token // 32] >> token % 32 & 1
        assert matcher.accept(token)
    matcher.fill(mask)
    assert all(mask[end // 32] >> end % 32 & 1 for end in demo_tokenizer.eos_ids)


# The grammar itself


def test_nothing_to_hold_to() -> None:
    assert FORMAT.grammar([LOOSE], AUTO) == FORMAT.grammar([], AUTO) == ""


def test_unknown_choice() -> None:
    with pytest.raises(ValueError, match="there is no tool to choose"):
        FORMAT.grammar([LOOSE], ToolChoice("tool", "h"))
    with pytest.raises(ValueError, match="there is no tool to choose"):
        FORMAT.grammar([], ANY)


def test_properties_that_the_schema_does_not_name(tokenizer) -> None:
    """They may come only where the schema speaks of them."""

    def allows_more(**schema: Any) -> bool:
        tool = Tool("f", "", {"type": "object", **schema})
        answer = '{"name": "f", "parameters": {"x": 1, "more": 2}}'
        return allows(tokenizer, FORMAT.grammar([tool], ANY), answer)

    named = {"x": {"type": "integer"}}
    assert not allows_more(properties=named)
    assert not allows_more(properties=named, additionalProperties=False)
    assert allows_more(properties=named, additionalProperties=True)
    assert allows_more(properties=named, additionalProperties={"type": "integer"})
    assert allows_more(properties=named, required=["more"])
    assert allows_more(properties=named, patternProperties={"^m": {}})
    assert allows_more()


def test_calls_are_limited(tokenizer) -> None:
    grammar = FORMAT.grammar([STRICT])
    assert allows(tokenizer, grammar, CALL * 32)
    assert not allows(tokenizer, grammar, CALL * 33)


@pytest.mark.parametrize("tools", [[STRICT], [STRICT, Tool("g", "", {})]])
def test_a_forced_choice_makes_no_more_calls_than_there_are_tools(tokenizer, tools: list[Tool]) -> None:
    grammar = FORMAT.grammar(tools, ANY)
    assert allows(tokenizer, grammar, CALL * len(tools))
    assert not allows(tokenizer, grammar, CALL * (len(tools) + 1))


@pytest.mark.parametrize("schema", [{}, {"type": ["object", "null"]}, {"properties": {}}, {"type": "string"}])
def test_arguments_are_an_object(tokenizer, schema: dict[str, Any]) -> None:
    grammar = FORMAT.grammar([Tool("f", "", schema)], ANY)
    assert allows(tokenizer, grammar, '{"name": "f", "parameters": {}}')
    assert not allows(tokenizer, grammar, '{"name": "f", "parameters": null}')
    assert not allows(tokenizer, grammar, '{"name": "f", "parameters": ""}')


def test_white_space_is_bounded(tokenizer) -> None:
    grammar = FORMAT.grammar([STRICT], ANY)
    assert allows(tokenizer, grammar, '{"name": "f", "parameters": { "x" : 1 }}')
    assert not allows(tokenizer, grammar, '{"name": "f", "parameters": {  "x": 1}}')
    assert not allows(tokenizer, grammar, '{"name": "f", "parameters": {\n"x": 1}}')


def test_markers() -> None:
    assert ToolFormat(["<|python_tag|>", "<|eot_id|>"]).markers == ("<|python_tag|>",)
    assert ToolFormat(["<s>", "<tool_call>", "</tool_call>"]).markers == ("<tool_call>", "</tool_call>")
    assert FORMAT.markers == ()
