"""Edited logits on real weights: answers follow their schema, penalties and biases do what they say, and
none of it depends on company."""

import json
import random

import demo
import jsonschema
import numpy as np
import pytest
import torch
from demo import Make, prompts
from schemas import Schema, random_schema

from outcrop.engine.core import EngineCore
from outcrop.engine.messages import FinishReason, GenerationRequest, SamplingParams
from outcrop.engine.policy import Interleave
from outcrop.text.detokenizer import Detokenizer
from outcrop.text.grammar import GrammarCompiler, json_schema_grammar
from outcrop.text.tokenizer import Tokenizer, load_tokenizer
from outcrop_compile.llama import PagedLlama


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(demo.PATH)


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer)


def run(
    core: EngineCore, wanted: list[GenerationRequest], compiler: GrammarCompiler
) -> tuple[dict[str, list[int]], dict[str, FinishReason]]:
    """Every answer, and why it ended."""
    tokens: dict[str, list[int]] = {request.request_id: [] for request in wanted}
    finish: dict[str, FinishReason] = {}
    for request in wanted:
        assert core.add(request) is None
        if grammar := request.sampling.grammar:
            assert core.grammar_built(request.request_id, grammar, compiler.matcher(grammar)) is None
    while not core.idle:
        for delta in core.step():
            tokens[delta.request_id] += delta.tokens
            if delta.finish is not None:
                finish[delta.request_id] = delta.finish
    return tokens, finish


def request(tokenizer: Tokenizer, index: int, schema: Schema, temperature: float) -> GenerationRequest:
    sampling = SamplingParams(
        120, temperature, 0.95, seed=index, eos_ids=tokenizer.eos_ids, grammar=json_schema_grammar(schema)
    )
    prompt = prompts()[index % 19]
    return GenerationRequest(f"{index} {temperature}", prompt, sampling)


def check_schemas(make: Make, tokenizer: Tokenizer, compiler: GrammarCompiler, seeds: range) -> None:
    schemas = [random_schema(random.Random(seed)) for seed in seeds]
    wanted = [
        request(tokenizer, index, schema, 0.0 if index % 2 else 0.9) for index, schema in enumerate(schemas)
    ]
    plain = GenerationRequest("plain", prompts()[0], SamplingParams(40))
    tokens, finish = run(EngineCore(make(), Interleave()), [plain, *wanted], compiler)
    alone, _ = run(EngineCore(make(), Interleave()), [plain], compiler)
    assert tokens["plain"] == alone["plain"]
    whole = 0
    for each, schema in zip(wanted, schemas, strict=True):
        if finish[each.request_id] is FinishReason.EOS:
            value = json.loads(Detokenizer(tokenizer).push(tokens[each.request_id]))
            jsonschema.validate(value, schema, jsonschema.Draft202012Validator)
            whole += 1
        else:
            # Cut off: what there is leads to a valid answer.
            assert finish[each.request_id] is FinishReason.LENGTH
            matcher = compiler.matcher(each.sampling.grammar)
            assert all(matcher.accept(token) for token in tokens[each.request_id])
    assert whole > 0.6 * len(seeds)


def test_twenty_answers_are_valid_for_their_schemas(
    make: Make, tokenizer: Tokenizer, compiler: GrammarCompiler
) -> None:
    check_schemas(make, tokenizer, compiler, range(20))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_answers_are_valid_for_their_schemas(
    make: Make, tokenizer: Tokenizer, compiler: GrammarCompiler
) -> None:
    check_schemas(make, tokenizer, compiler, range(20, 220))


SENTENCE: Schema = {
    "type": "object",
    "properties": {"topic": {"type": "string", "maxLength": 40}, "words": {"type": "integer"}},
    "required": ["topic", "words"],
    "additionalProperties": False,
}
EDITED = {
    "grammar": SamplingParams(40, 0.8, seed=3, eos_ids=(0, 2), grammar=json_schema_grammar(SENTENCE)),
    "penalties": SamplingParams(
        40, 0.8, seed=3, repetition_penalty=1.2, presence_penalty=0.3, frequency_penalty=0.2,
        logit_bias={260: -100.0}, min_p=0.05,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(EDITED))
def test_an_edited_answer_does_not_depend_on_company_depth_or_memory(
    make: Make, compiler: GrammarCompiler, kind: str
) -> None:
    it = GenerationRequest("it", prompts()[4], EDITED[kind])
    others = [GenerationRequest(str(n), prompts()[n], SamplingParams(40)) for n in range(5, 9)]
    alone, _ = run(EngineCore(make(depth=1, max_rows=1), Interleave()), [it], compiler)
    together, _ = run(EngineCore(make(), Interleave()), [*others, it], compiler)
    tight = EngineCore(make(blocks=12, max_model_len=160), Interleave())
    squeezed, _ = run(tight, [*others, it], compiler)
    assert tight.stats().preemptions > 0
    assert alone["it"] == together["it"] == squeezed["it"]


def test_greedy_choices_follow_the_definition_of_the_penalties(make: Make, compiler: GrammarCompiler) -> None:
    """Each token is the largest of the model's own logits after edits made by hand."""
    sampling = SamplingParams(
        24, repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.4, logit_bias={28: 2.0}
    )
    prompt, engine = prompts()[5], make()
    tokens, _ = run(EngineCore(engine, Interleave()), [GenerationRequest("a", prompt, sampling)], compiler)
    bare = SamplingParams(1)
    plain, _ = run(EngineCore(make(), Interleave()), [GenerationRequest("a", prompt, bare)], compiler)
    logits = teacher_forced(demo.model_of(engine), prompt + tokens["a"])[len(prompt) - 1 : -1]
    assert plain["a"] == [int(logits[0].argmax())]
    assert tokens["a"] != logits.argmax(axis=-1).tolist()  # the edits make a difference
    for index, row in enumerate(logits):
        output = tokens["a"][:index]
        for token in {*prompt, *output}:
            row[token] = row[token] / 1.3 if row[token] > 0 else row[token] * 1.3
        for token in set(output):
            row[token] -= 0.5 + 0.4 * output.count(token)
        row[28] += 2.0
        assert tokens["a"][index] == int(row.argmax())


def teacher_forced(model: PagedLlama, tokens: list[int]) -> np.ndarray:
    positions = torch.arange(len(tokens), dtype=torch.int32)[None]
    table = torch.arange(-(-len(tokens) // 16), dtype=torch.int32)[None]
    with torch.inference_mode():
        hidden = model.hidden_states(torch.tensor([tokens], dtype=torch.int32), positions, positions, table)
        return model.logits(hidden).numpy()
