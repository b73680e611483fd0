"""Answers that follow a grammar, through a whole engine with the demo model's tokenizer."""

import asyncio
import json
import random
from functools import cache

import demo
import jsonschema
import pytest
from schemas import random_schema

from outcrop.backends.base import Capabilities
from outcrop.backends.fake import FakeBackend
from outcrop.engine.client import EngineClient, ModelFailure
from outcrop.engine.config import EngineConfig
from outcrop.engine.in_process import InProcessClient
from outcrop.engine.messages import GenerationRequest, SamplingParams
from outcrop.engine.process_client import ProcessClient
from outcrop.text.detokenizer import Detokenizer
from outcrop.text.grammar import json_schema_grammar
from outcrop.text.tokenizer import Tokenizer, load_tokenizer


@cache
def tokenizer() -> Tokenizer:
    return load_tokenizer(demo.PATH)


def in_process(**options: object) -> InProcessClient:
    caps = Capabilities(
        max_rows=8, block_size=16, num_blocks=1024, max_model_len=2048, vocab_size=tokenizer().vocab_size,
        topk_cap=256, depth=2,
    )  # fmt: skip
    return InProcessClient(FakeBackend(caps), **({"load_tokenizer": tokenizer} | options))  # type: ignore[arg-type]


def request(name: str, schema: object, *, temperature: float = 0.0, seed: int = 0) -> GenerationRequest:
    sampling = SamplingParams(
        1500, temperature, seed=seed, eos_ids=tokenizer().eos_ids,
        grammar=json_schema_grammar(schema),  # type: ignore[arg-type]
    )  # fmt: skip
    return GenerationRequest(name, tokenizer().encode(f"question {name}"), sampling)


async def text(client: EngineClient, wanted: GenerationRequest) -> str:
    detokenizer = Detokenizer(tokenizer())
    parts = [detokenizer.push(delta.tokens) async for delta in client.generate(wanted)]
    return "".join(parts) + detokenizer.finish()


async def failure(client: EngineClient, wanted: GenerationRequest) -> str:
    with pytest.raises(ModelFailure) as failed:
        await text(client, wanted)
    return str(failed.value)


def test_two_hundred_schemas_greedy_and_sampled_among_plain_requests() -> None:
    async def scenario() -> None:
        client = in_process()
        await client.start()
        schemas = [random_schema(random.Random(seed)) for seed in range(200)]
        wanted = [
            request(f"{index} {temperature}", schema, temperature=temperature, seed=index)
            for index, schema in enumerate(schemas)
            for temperature in (0.0, 0.8)
        ]
        plain = [GenerationRequest(f"plain {i}", [i, 5, 7], SamplingParams(300)) for i in range(4)]
        answers = await asyncio.gather(*(text(client, each) for each in [*plain, *wanted]))
        for each, schema in zip(answers[4::2], schemas, strict=True):
            jsonschema.validate(json.loads(each), schema, jsonschema.Draft202012Validator)
        for each, schema in zip(answers[5::2], schemas, strict=True):
            jsonschema.validate(json.loads(each), schema, jsonschema.Draft202012Validator)
        again = await asyncio.gather(*(text(client, each) for each in wanted[:20]))
        assert again == answers[4:24]
        await client.close()

    asyncio.run(scenario())


BROKEN = SamplingParams(20, grammar="start: nowhere")


def test_a_grammar_that_cannot_be_built_ends_its_request_alone() -> None:
    async def scenario() -> None:
        client = in_process()
        await client.start()
        good, bad = await asyncio.gather(
            text(client, request("good", {"const": "yes"})),
            failure(client, GenerationRequest("bad", [1, 2], BROKEN)),
        )
        assert (good, bad) == ('"yes"', "The model could not be held to the grammar of the answer.")
        await client.close()

    asyncio.run(scenario())


def test_without_a_tokenizer_only_requests_with_a_grammar_fail() -> None:
    async def scenario() -> None:
        client = in_process(load_tokenizer=None)
        await client.start()
        assert "grammar" in await failure(client, request("a", {"const": "yes"}))
        assert await text(client, GenerationRequest("b", [1, 2], SamplingParams(5)))
        await client.close()

    asyncio.run(scenario())


def test_an_engine_process_builds_grammars_and_goes_on_after_a_crash() -> None:
    """A poisonous request takes the engine down while constrained answers are under way; they continue
    from the tokens delivered, replayed into their grammars."""

    async def scenario() -> None:
        config = EngineConfig(
            model=str(demo.PATH), backend="fake", vocab_size=tokenizer().vocab_size, max_model_len=2048,
            fake_poison=49151, fake_step_ms=2.0,
        )  # fmt: skip
        client = ProcessClient(config)
        await client.start()
        schema = {"type": "array", "items": {"type": "integer"}, "minItems": 60, "maxItems": 60}
        undisturbed = await text(client, request("it", schema))
        assert len(json.loads(undisturbed)) == 60
        assert "grammar" in await failure(client, GenerationRequest("bad", [1, 2], BROKEN))

        stream = client.generate(request("it", schema))
        first = await anext(stream)
        while not first.tokens:
            first = await anext(stream)
        poison = asyncio.create_task(
            failure(client, GenerationRequest("poison", [1, 49151], SamplingParams(5)))
        )
        tokens = first.tokens + [token async for delta in stream for token in delta.tokens]
        assert client.restarts >= 1
        assert Detokenizer(tokenizer()).push(tokens) == undisturbed
        assert "twice" in await poison
        await client.close()

    asyncio.run(scenario())


def test_an_abort_while_the_grammar_is_being_built_is_honoured() -> None:
    async def scenario() -> None:
        client = in_process()
        await client.start()
        abandoned = asyncio.create_task(text(client, request("gone", {"type": "string"})))
        await asyncio.sleep(0)
        abandoned.cancel()
        with pytest.raises(asyncio.CancelledError):
            await abandoned
        assert await text(client, request("here", {"const": "yes"})) == '"yes"'
        assert client.core.idle
        await client.close()

    asyncio.run(scenario())
