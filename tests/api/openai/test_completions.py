"""`/openai/v1/completions` over real HTTP."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest

from outcrop.api.admission import ApiLimits
from outcrop.engine.client import Abilities, FinishReason, ModelFailure

from ..doubles import EOS, Script, ScriptedEngine
from ..server import Server, eventually, running
from ..test_http import post_h1, post_h2

PATH = "/openai/v1/completions"
MODEL = "meta.llama3-8b-instruct-v1:0"
HELLO = {"model": MODEL, "prompt": "Say"}


def chunks(response: httpx.Response) -> list[dict[str, Any]]:
    """The events of a whole stream, which must end as OpenAI's do."""
    assert response.headers["content-type"] == "text/event-stream"
    *events, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_a_whole_answer(http: httpx.Client, server: Server) -> None:
    server.engine.script = Script(cached=2)
    response = http.post(PATH, json=HELLO)
    assert response.status_code == 200
    body = response.json()
    assert body.pop("id") == f"cmpl-{response.headers['x-amzn-requestid']}"
    assert isinstance(body.pop("created"), int)
    assert body == {
        "object": "text_completion",
        "model": MODEL,
        "choices": [{"index": 0, "text": "Hello, world", "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 13,
            "total_tokens": 16,
            "prompt_tokens_details": {"cached_tokens": 2},
        },
    }


def test_a_stream_has_a_chunk_for_each_step(http: httpx.Client, server: Server) -> None:
    """Also for one that completes no character: clients time tokens by their chunks."""
    server.engine.script = Script(pieces=(b"caf", b"\xc3", b'\xa9 "x"\n'), finish=FinishReason.LENGTH)
    got = chunks(http.post(PATH, json=HELLO | {"stream": True, "return_token_ids": True}))
    assert len({chunk["id"] for chunk in got}) == 1
    assert all(chunk["object"] == "text_completion" and chunk["model"] == MODEL for chunk in got)
    assert not any("usage" in chunk for chunk in got)
    choices = [choice for chunk in got for choice in chunk["choices"]]
    assert [choice["text"] for choice in choices] == ["caf", "", 'é "x"\n', ""]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "length"]
    assert [bytes(choice["token_ids"]) for choice in choices] == [b"caf", b"\xc3", b'\xa9 "x"\n', b""]


def test_usage_ends_a_stream_that_asks_for_it(http: httpx.Client) -> None:
    *before, last = chunks(
        http.post(PATH, json=HELLO | {"stream": True, "stream_options": {"include_usage": True}})
    )
    assert all(chunk["usage"] is None for chunk in before)
    assert "token_ids" not in before[0]["choices"][0]
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 16


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("hé", ["hé".encode()]),
        ([104, 105], [b"hi"]),
        (["a", "b"], [b"a", b"b"]),
        ([[104], [105, 106]], [b"h", b"ij"]),
        (["a", [98]], [b"a", b"b"]),
        ([EOS], None),
    ],
)
def test_the_forms_of_a_prompt(
    http: httpx.Client, server: Server, prompt: Any, prompts: list[bytes] | None
) -> None:
    body = http.post(PATH, json={"model": MODEL, "prompt": prompt}).raise_for_status().json()
    wanted = [[EOS]] if prompts is None else [list(each) for each in prompts]
    assert sorted(request.prompt for request in server.engine.requests) == wanted
    assert [choice["index"] for choice in body["choices"]] == list(range(len(wanted)))
    assert body["usage"]["prompt_tokens"] == sum(map(len, wanted))
    assert len({request.request_id for request in server.engine.requests}) == len(wanted)


def test_a_stream_of_several_prompts(http: httpx.Client) -> None:
    got = chunks(http.post(PATH, json={"model": MODEL, "prompt": ["a", "b", "c"], "stream": True}))
    texts = {0: "", 1: "", 2: ""}
    ends = []
    for chunk in got:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["text"]
        ends += [choice["index"]] * (choice["finish_reason"] == "stop")
    assert set(texts.values()) == {"Hello, world"}
    assert sorted(ends) == [0, 1, 2]


def test_parameters_reach_the_engine(http: httpx.Client, server: Server) -> None:
    given = {
        "max_tokens": 7, "temperature": 1.5, "top_p": 0.5, "seed": 2**40 + 3, "presence_penalty": -1,
        "frequency_penalty": 0.5, "logit_bias": {"65": -100}, "top_k": -1, "min_p": 0.1,
        "repetition_penalty": 1.2, "n": 1, "best_of": 1, "echo": False, "suffix": None, "logprobs": None,
        "user": "somebody", "stop": ["wor", "nothing"],
    }  # fmt: skip
    body = http.post(PATH, json=HELLO | given).raise_for_status().json()
    assert body["choices"][0] == {"index": 0, "text": "Hello, ", "logprobs": None, "finish_reason": "stop"}
    sampling = server.engine.requests[-1].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed) == (7, 1.5, 0.5, 3)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (-1, 0.5)
    assert sampling.logit_bias == {65: -100}
    assert (sampling.top_k, sampling.min_p, sampling.repetition_penalty) == (0, 0.1, 1.2)
    assert sampling.eos_ids == (EOS,)


def test_defaults_are_openai_s(http: httpx.Client, server: Server) -> None:
    http.post(PATH, json=HELLO).raise_for_status()
    sampling = server.engine.requests[-1].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (16, 1.0, 1.0)


def test_ignore_eos_leaves_nothing_but_limits_to_end_the_answer(http: httpx.Client, server: Server) -> None:
    http.post(PATH, json=HELLO | {"ignore_eos": True}).raise_for_status()
    assert server.engine.requests[-1].sampling.eos_ids == ()


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"prompt": None}, "prompt", "prompt: Expected `str | array`, got `null`"),
        ({"prompt": []}, "prompt", "prompt: 1 to 128 prompts, not 0"),
        ({"prompt": ["a"] * 129}, "prompt", "prompt: 1 to 128 prompts, not 129"),
        ({"prompt": [1, "a"]}, "prompt", "prompt: token ids beside prompts"),
        ({"prompt": [1, 257]}, "prompt", "prompt: 257 is not a token id of this model, which are 0 to 256"),
        ({"prompt": [[1], [-1]]}, "prompt", "prompt: -1 is not a token id"),
        ({"prompt": [[]]}, None, "The prompt has no tokens"),
        ({"prompt": "x" * 512}, None, "maximum context length is 512 tokens"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens: Expected `int` >= 1"),
        ({"max_tokens": 513}, None, "exceeds the model limit of 512"),
        ({"max_tokens": "7"}, "max_tokens", "max_tokens: Expected `int | null`, got `str`"),
        ({"temperature": 2.1}, "temperature", "temperature: Expected `float` <= 2"),
        ({"stop": ["a", ""]}, "stop[1]", "Expected `str` of length >= 1"),
        ({"logit_bias": {"257": 1}}, "logit_bias", "logit_bias: 257 is not a token id"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "logit_bias: Expected `int`, got `str`"),
        ({"n": 2}, "n", "n: this value is not supported here"),
        ({"logprobs": 21}, "logprobs", "logprobs: Expected `int` <= 20"),
        ({"echo": True}, "echo", "echo: this value is not supported here"),
        ({"stream_options": {}}, "stream_options", "they are for stream: true"),
        ({"stream_options": {"x": 1}}, "stream_options.x", "does not have this parameter"),
        ({"min_tokens": 3}, "min_tokens", "min_tokens: This server does not have this parameter"),
    ],
)
def test_what_is_refused(
    http: httpx.Client, server: Server, change: dict[str, Any], param: str | None, message: str
) -> None:
    response = http.post(PATH, json=HELLO | change)
    assert response.status_code == 400
    error = response.json()["error"]
    assert message in error.pop("message")
    assert error == {"type": "invalid_request_error", "param": param, "code": "ValidationException"}
    assert server.engine.requests == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"[1]", "Expected `object`, got `array`"),
        (b'{"model": "\xff"}', "not valid JSON"),
        (b'{"model": "m", "prompt": ' + b"[" * 100_000, "prompt[0][0]: Expected `int`, got `array`"),
        (b'{"prompt": "Say"}', "model: This parameter is required."),
    ],
)
def test_bodies_that_are_none(http: httpx.Client, body: bytes, message: str) -> None:
    response = http.post(PATH, content=body)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


def test_errors_of_all_kinds_have_openai_s_form(http: httpx.Client) -> None:
    response = http.get("/openai/v1/nothing")
    assert response.status_code == 404
    assert response.headers["x-amzn-requestid"]
    assert response.json()["error"]["code"] == "UnknownOperationException"


def test_models_by_name() -> None:
    with (
        running(ScriptedEngine(), demo=False, aliases=("llama",)) as server,
        httpx.Client(base_url=server.url, timeout=20) as http,
    ):
        answer = http.post(PATH, json=HELLO | {"model": "llama"}).raise_for_status()
        assert answer.json()["model"] == "llama"
        refused = http.post(PATH, json=HELLO | {"model": "gpt/4"})
        listed = http.get("/openai/v1/models").raise_for_status().json()
    assert refused.status_code == 404
    assert refused.json()["error"] | {"message": ""} == {
        "message": "", "type": "invalid_request_error", "param": "model", "code": "model_not_found"
    }  # fmt: skip
    assert "'gpt/4'" in refused.json()["error"]["message"]
    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == (MODEL, "model", 512)


@pytest.mark.parametrize("prompt", ["a", ["a", "b"]])
def test_a_failure_within_a_stream_is_its_last_event(
    http: httpx.Client, server: Server, prompt: object
) -> None:
    server.engine.script = Script(error=ModelFailure("NaN"), fail_after=2)
    response = http.post(PATH, json={"model": MODEL, "prompt": prompt, "stream": True})
    assert response.status_code == 200
    *events, last, rest = response.text.split("\n\n")
    assert rest == ""
    assert len(events) >= 2
    error = json.loads(last.removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == ("server_error", "ModelErrorException")
    eventually(lambda: server.engine.open == 0)


@pytest.mark.parametrize("h2c", [False, True], ids=["http/1.1", "h2c"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("prompt", ["a", ["a", "b"]])
def test_a_client_that_leaves_ends_all_its_generations(
    server: Server, prompt: object, stream: bool, h2c: bool
) -> None:
    server.engine.script = Script(hold=True)
    body = json.dumps({"model": MODEL, "prompt": prompt, "stream": stream}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as wire:
        if h2c:
            post_h2(wire, (PATH, body))
        else:
            post_h1(wire, PATH, body)
        eventually(lambda: server.engine.open == (1 if prompt == "a" else 2))
    eventually(lambda: server.engine.open == 0)


def test_each_prompt_is_admitted_by_itself() -> None:
    engine = ScriptedEngine()
    with (
        running(engine, limits=ApiLimits(max_inflight=1)) as server,
        httpx.Client(base_url=server.url, timeout=20) as http,
    ):
        assert http.post(PATH, json=HELLO).status_code == 200
        for stream in (False, True):
            response = http.post(PATH, json={"model": MODEL, "prompt": ["a", "b"], "stream": stream})
            assert response.status_code == 429
            assert response.json()["error"]["type"] == "rate_limit_error"
        eventually(lambda: engine.open == 0)
        metrics = http.get("/metrics").text
    assert 'outcrop_http_requests_total{operation="createCompletion",status="429"} 2.0' in metrics
    assert "vllm:time_to_first_token_seconds_count" in metrics


def test_log_probabilities_of_each_token(
    http: httpx.Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.engine.script = Script(pieces=(b"caf", b"\xc3", b"\xa9!"), finish=FinishReason.LENGTH)
    asked = HELLO | {"logprobs": 2}
    (choice,) = http.post(PATH, json=asked).json()["choices"]
    assert choice["logprobs"] == {
        "tokens": ["c", "a", "f", "\\xc3", "\\xa9", "!"],
        "token_logprobs": [-0.5] * 6,
        "top_logprobs": [
            {first: -0.5, second: -1.5}
            for first, second in ("cd", "ab", "fg", ("\\xc3", "\\xc4"), ("\\xa9", "\\xaa"), '!"')
        ],
        "text_offset": [0, 1, 2, 3, 4, 4],
    }
    streamed = [chunk["choices"][0] for chunk in chunks(http.post(PATH, json=asked | {"stream": True}))]
    told = [each["logprobs"]["tokens"] for each in streamed]
    assert told == [["c", "a", "f"], ["\\xc3"], ["\\xa9", "!"], []]
    assert [each["logprobs"]["text_offset"][:1] for each in streamed] == [[0], [3], [4], []]
    assert http.post(PATH, json=HELLO).json()["choices"][0]["logprobs"] is None
    monkeypatch.setattr(server.engine, "can", Abilities())
    refused = http.post(PATH, json=asked)
    assert refused.status_code == 400
    assert "the model's engine tells none" in refused.json()["error"]["message"]
