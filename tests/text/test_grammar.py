"""Grammars over the demo model's tokens: what they admit, what they refuse, and that neither takes long."""

import json
import random
import threading

import demo
import jsonschema
import numpy as np
import pytest
from schemas import random_schema

from outcrop.text.detokenizer import Detokenizer
from outcrop.text.grammar import (
    MAX_GRAMMAR_BYTES,
    GrammarCompiler,
    GrammarError,
    json_schema_grammar,
    json_schema_rule,
)
from outcrop.text.tokenizer import Tokenizer, load_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(demo.PATH)


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer)


def allowed(mask: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))


def random_walk(compiler: GrammarCompiler, grammar: str, rng: random.Random, most: int = 2000) -> list[int]:
    """Tokens of a random answer, up to the end or `most` of them."""
    matcher = compiler.matcher(grammar)
    mask = np.zeros(-(-compiler.vocab_size // 32), dtype=np.int32)
    tokens: list[int] = []
    while not matcher.finished and len(tokens) < most:
        matcher.fill(mask)
        tokens.append(int(rng.choice(allowed(mask))))
        assert matcher.accept(tokens[-1]), matcher.error
    return tokens


def text_of(tokenizer: Tokenizer, tokens: list[int]) -> str:
    detokenizer = Detokenizer(tokenizer)
    return detokenizer.push(tokens) + detokenizer.finish()


def takes(compiler: GrammarCompiler, tokenizer: Tokenizer, grammar: str, text: str) -> bool:
    """Whether a text is a whole answer, in the tokenizer's own tokens."""
    matcher = compiler.matcher(grammar)
    return all(matcher.accept(token) for token in tokenizer.encode(text)) and (
        matcher.finished or matcher.accept(tokenizer.eos_ids[0])
    )


def test_random_answers_are_valid_for_random_schemas(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    for seed in range(200):
        rng = random.Random(seed)
        schema = random_schema(rng)
        grammar = json_schema_grammar(schema)
        compiler.check(grammar)
        value = json.loads(text_of(tokenizer, random_walk(compiler, grammar, rng)))
        jsonschema.validate(value, schema, jsonschema.Draft202012Validator)


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ('{"name":"Ann","age":3}', True),
        ('{"name": "Ann", "age": 3}', True),
        ('{ "name" : "Ann" , "age" : 3 }', True),
        ('{"name":  "Ann", "age": 3}', False),
        ('{"age": 3, "name": "Ann"}', False),
        ('{"name": "Ann"}', False),
        ('{"name": "Ann", "age": -3}', False),
        ('{"name": "Ann", "age": 3} and more', False),
    ],
)
def test_what_an_answer_may_look_like(
    compiler: GrammarCompiler, tokenizer: Tokenizer, text: str, good: bool
) -> None:
    for grammar in (json_schema_grammar(PERSON), json_schema_grammar(json.dumps(PERSON))):
        assert takes(compiler, tokenizer, grammar, text) is good
    assert takes(compiler, tokenizer, f"start: {json_schema_rule(PERSON)}", text) is good


def test_control_tokens_go_by_their_names(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    grammar = f"start: <|im_start|> {json_schema_rule({'const': 1})}"
    matcher = compiler.matcher(grammar)
    mask = np.zeros(-(-compiler.vocab_size // 32), dtype=np.int32)
    matcher.fill(mask)
    assert allowed(mask).tolist() == [tokenizer.special_tokens["<|im_start|>"]]
    assert not takes(compiler, tokenizer, grammar, "<|im_start|>1")  # the same in plain text


def test_text_that_spells_a_control_token_is_text(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    grammar = json_schema_grammar({"const": "a<|im_end|>b"})
    tokens = random_walk(compiler, grammar, random.Random(0))
    assert not set(tokens) & set(tokenizer.special_tokens.values())
    assert json.loads(text_of(tokenizer, tokens)) == "a<|im_end|>b"


def test_words_beyond_the_vocabulary_are_cleared(compiler: GrammarCompiler) -> None:
    mask = np.full(-(-compiler.vocab_size // 32) + 7, -1, dtype=np.int32)
    compiler.matcher(json_schema_grammar({})).fill(mask)
    assert not mask[-7:].any()
    with pytest.raises(ValueError, match="words"):
        compiler.matcher(json_schema_grammar({})).fill(mask[:9])


def test_a_matcher_that_refused_a_token_says_so_for_good(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    matcher = compiler.matcher(json_schema_grammar(PERSON))
    assert not matcher.accept(tokenizer.encode("x")[0])
    assert matcher.error
    assert not matcher.finished
    assert not matcher.accept(tokenizer.encode("{")[0])


def deep(levels: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


BAD: dict[str, object] = {
    "unknown type": {"type": "strin"},
    "no object": "[]",
    "no JSON": "nope",
    "no schema admits": "false",
    "empty enum": {"enum": []},
    "contradiction": {"type": "integer", "minimum": 5, "maximum": 3},
    "endless": {"$ref": "#"},
    "unsupported keyword": {"not": {"type": "string"}},
    "no such definition": {"$ref": "#/nope"},
    "another document": {"$ref": "http://example.com/schema"},
    "bad pattern": {"type": "string", "pattern": "("},
    "look-ahead": {"type": "string", "pattern": "^(?=a)b"},
    "half a surrogate pair": {"const": "\ud800"},
    "half a surrogate pair, unescaped": '{"const": "\ud800"}',
    "not JSON at all": {"enum": [object()]},
    "brackets": "[" * 5000,
    "deep JSON": '{"a":' * 5000 + "1" + "}" * 5000,
    "deep schema": deep(200),
    "deep pattern": {"type": "string", "pattern": "(" * 5000 + ")" * 5000},
    "large": {"enum": [f"{i:06}" for i in range(MAX_GRAMMAR_BYTES // 8)]},
    "wide": {"type": "object", "properties": {f"p{i}": {} for i in range(2000)}},
    "remainders": {"type": "integer", "multipleOf": 1_000_003},
    "remainders together": {"allOf": [{"type": "integer", "multipleOf": 1009}, {"multipleOf": 1013}]},
    "fine remainders": {"type": "number", "multipleOf": 1e-7},
    "huge remainders": '{"type": "number", "multipleOf": 1e999999999}',
    "product of alternatives": {
        "allOf": [
            {"anyOf": [{"type": "object", "properties": {f"a{i}{j}": {}}} for j in range(4)]}
            for i in range(9)
        ]
    },
}


@pytest.mark.parametrize("kind", sorted(BAD))
def test_a_schema_that_cannot_be_used_is_refused_with_a_reason(compiler: GrammarCompiler, kind: str) -> None:
    with pytest.raises(GrammarError, match=r"\w+ \w+") as refused:
        compiler.check(json_schema_grammar(BAD[kind]))  # type: ignore[arg-type]
    assert "non-verbose" not in str(refused.value)


@pytest.mark.parametrize(
    "grammar",
    ["", "start: /(/", "start: nowhere", "start: <|nowhere|>", '{"grammars": []}', "\ud800",
     "start: " + '"a"? ' * 10_000, "start: " + "(" * 20_000],
)  # fmt: skip
def test_a_grammar_that_cannot_be_used_is_refused_with_a_reason(
    compiler: GrammarCompiler, grammar: str
) -> None:
    with pytest.raises(GrammarError, match=r"\w+"):
        compiler.check(grammar)


def test_checking_lets_other_threads_run(compiler: GrammarCompiler) -> None:
    """A grammar that takes tens of milliseconds: another thread counts meanwhile."""
    grammar = json_schema_grammar({"type": "object", "properties": {f"p{i}": {} for i in range(900)}})
    counted, done = 0, threading.Event()

    def check() -> None:
        compiler.check(grammar)
        done.set()

    thread = threading.Thread(target=check)
    thread.start()
    while not done.is_set():
        counted += 1
        done.wait(0.001)
    thread.join()
    assert counted > 2


def test_the_same_compiler_serves_several_threads(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    answers: list[object] = []

    def answer(seed: int) -> None:
        schema = {"const": f"value {seed}"}
        tokens = random_walk(compiler, json_schema_grammar(schema), random.Random(seed))
        answers.append(json.loads(text_of(tokenizer, tokens)))

    threads = [threading.Thread(target=answer, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, answers)) == [f"value {seed}" for seed in range(8)]


@pytest.mark.parametrize(("text", "bounded"), [("[1.", True), ("[-7", True), ('["', False), ('["\\"', False)])
def test_a_number_has_no_more_digits_than_anybody_needs(
    compiler: GrammarCompiler, tokenizer: Tokenizer, text: str, bounded: bool
) -> None:
    """JSON sets no bound to them, and a model that repeats itself would go on to its token limit."""
    schema = {"type": "array", "items": {"type": ["number", "string"]}}
    matcher = compiler.matcher(json_schema_grammar(schema))
    mask = np.zeros(-(-compiler.vocab_size // 32), dtype=np.int32)
    for token in tokenizer.encode(text + "9" * 31):
        assert matcher.accept(token)
    (nine,) = tokenizer.encode("9")
    for _ in range(3):
        matcher.fill(mask)
        if nine not in allowed(mask):
            break
        matcher.accept(nine)
    assert (nine not in allowed(mask)) is bounded
    assert len(allowed(mask)) > 0
