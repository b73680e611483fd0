"""`outcrop bench`: what it counts, and that it does not wait for the server that it measures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from api.doubles import Script, ScriptedEngine
from api.server import Server, running
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from outcrop.api import eventstream
from outcrop.api.admission import ApiLimits
from outcrop.bench.call import Call
from outcrop.bench.figures import figures
from outcrop.bench.protocol import PROTOCOLS, Converse, Protocol, StreamFailure, event_stream
from outcrop.bench.run import run
from outcrop.cli.main import app
from outcrop.engine.client import ModelFailure
from outcrop.simulate.slo import Slo
from outcrop.simulate.trace import NS, Trace

MODEL = "meta.llama3-8b-instruct-v1:0"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(ScriptedEngine(), limits=ApiLimits(max_inflight=64)) as server:
        yield server


def trace(count: int, gap: float = 0.0, prompt: int = 4, output: int = 20) -> Trace:
    arrival = (np.arange(count) * gap * NS).astype(np.int64)
    return Trace("test", arrival, np.full(count, prompt), np.full(count, output))


def target(server: Server, name: str) -> Protocol:
    return PROTOCOLS[name](f"{server.url}/openai" if name == "openai" else server.url, MODEL)


def measure(protocol: Protocol, load: Trace, timeout: float = 60.0) -> list[Call]:
    return list(asyncio.run(run(protocol, load, seed=1, timeout=timeout)))


# -- figures ---------------------------------------------------------------------------------------


def test_figures_follow_their_definitions() -> None:
    calls = [
        Call(begun=10.0, due=10.0, pieces=[10.1, 10.2, 10.4], output_tokens=4, input_tokens=30, ended=10.5),
        Call(begun=11.02, due=11.0, pieces=[11.32, 11.42], output_tokens=2, input_tokens=10, ended=12.0),
        Call(begun=12.0, due=12.0, error="HTTP 429"),
        Call(begun=13.0, due=13.0, pieces=[13.1], error="timeout"),
    ]
    found = figures(calls, Slo(ttft=200, tpot=150))
    assert (found.completed, found.errors_by_kind) == (2, {"HTTP 429": 1, "timeout": 1})
    assert found.offered_per_s == pytest.approx(1)
    assert found.seconds == pytest.approx(2)
    assert (found.input_tokens_per_s, found.output_tokens_per_s) == (pytest.approx(20), pytest.approx(3))
    assert (found.ttft_ms.p50, found.ttft_ms.max) == (pytest.approx(300), pytest.approx(300))
    assert found.ttft_ms.mean == pytest.approx(200)
    # Three tokens in 300 ms after the first, whatever the pieces; and one in 100.
    assert found.tpot_ms.mean == pytest.approx(100)
    assert found.itl_ms.mean == pytest.approx((100 + 200 + 100) / 3)
    assert found.e2e_ms.max == pytest.approx(980)
    assert found.delay_ms.max == pytest.approx(20)
    assert found.good_share == pytest.approx(1 / 4)
    assert found.goodput_per_s == pytest.approx(1 / 2)


def test_nothing_answered_is_no_division_by_zero() -> None:
    found = figures([Call(begun=1.0, due=1.0, error="HTTP 500")], Slo(1, 1))
    assert (found.completed, found.errors, found.output_tokens_per_s, found.good_share) == (0, 1, 0, 0)


# -- protocols -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROTOCOLS)
def test_counts_are_the_servers(server: Server, name: str) -> None:
    server.engine.script = Script()
    (call,) = measure(target(server, name), trace(1, prompt=4, output=20))
    assert call.error == ""
    asked = server.engine.requests[-1]
    assert call.input_tokens == len(asked.prompt)
    assert asked.sampling.max_tokens == 20
    assert call.output_tokens == len("Hello, world") + 1
    assert 1 <= len(call.pieces) <= 4
    assert call.ended is not None
    assert call.begun <= call.pieces[0] <= call.pieces[-1] <= call.ended


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("converse", "in the stream: modelStreamErrorException"),
        ("invoke", "in the stream: modelStreamErrorException"),
        ("openai", "in the stream: server_error"),
    ],
)
def test_answers_that_break_off_are_told_apart(server: Server, name: str, error: str) -> None:
    server.engine.script = Script(error=ModelFailure("x"), fail_after=1)
    (call,) = measure(target(server, name), trace(1))
    assert call.error == error
    assert call.ended is None


def test_other_failures_are_counted_by_their_kind(server: Server) -> None:
    server.engine.script = Script(error=ModelFailure("x"), pieces=())
    assert [call.error for call in measure(target(server, "converse"), trace(2))] == ["HTTP 424"] * 2
    server.engine.script = Script(hold=True)
    assert [call.error for call in measure(target(server, "converse"), trace(1), timeout=0.2)] == ["timeout"]
    nobody = PROTOCOLS["converse"]("http://127.0.0.1:9", MODEL)
    assert [call.error for call in measure(nobody, trace(1))] == ["ConnectionRefusedError"]


@given(
    texts=st.lists(st.binary(max_size=40), min_size=1, max_size=5),
    cuts=st.lists(st.integers(1, 30), max_size=9),
)
def test_events_are_read_however_they_are_cut(texts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(eventstream.event("contentBlockDelta").encode(text) for text in texts)

    async def pieces() -> AsyncIterator[bytes]:
        rest = data
        for cut in cuts:
            yield rest[:cut]
            rest = rest[cut:]
        yield rest

    async def scenario() -> list[tuple[str, bytes]]:
        return [event async for event in event_stream(pieces())]

    assert asyncio.run(scenario()) == [("contentBlockDelta", text) for text in texts]


def test_a_stream_that_is_cut_off_is_a_failure() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield eventstream.event("messageStop").encode(b"{}")[:-1]

    async def scenario() -> None:
        async for _ in event_stream(pieces()):
            pass

    with pytest.raises(StreamFailure, match="cut off"):
        asyncio.run(scenario())


# -- the load --------------------------------------------------------------------------------------


class Barrier(Converse):
    """Answers nobody until all have asked."""

    def __init__(self, parties: int) -> None:
        super().__init__("http://x", MODEL)
        self.barrier = asyncio.Barrier(parties)

    async def ask(self, prompt: str, max_tokens: int, call: Call) -> None:
        await self.barrier.wait()


def test_requests_do_not_wait_for_answers() -> None:
    async def scenario() -> list[Call]:
        return list(await run(Barrier(50), trace(50, gap=0.001), seed=1, timeout=60.0))

    calls = asyncio.run(scenario())
    assert [call.error for call in calls] == [""] * 50
    assert np.diff([call.due for call in calls]) == pytest.approx(0.001)


def test_prompts_share_no_beginning_and_depend_on_the_seed_alone(server: Server) -> None:
    server.engine.script = Script()
    rounds = []
    for _ in range(2):
        before = len(server.engine.requests)
        measure(target(server, "openai"), trace(8, prompt=12))
        rounds.append(sorted(bytes(request.prompt) for request in server.engine.requests[before:]))
    assert rounds[0] == rounds[1]
    assert len({prompt[:20] for prompt in rounds[0]}) == 8


# -- the command -----------------------------------------------------------------------------------


def test_the_command_and_what_cost_makes_of_it(server: Server, tmp_path: Path) -> None:
    server.engine.script = Script()
    command = ["bench", "--url", server.url, "--model", MODEL, "--rate", "400", "--requests", "40"]
    command += ["--input-tokens", "20"]
    result = CliRunner().invoke(app, [*command, "--slo", "ttft=9000,tpot=9000", "--json"])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert (record["completed"], record["errors"], record["good_share"]) == (40, 0, 1.0)
    assert record["mean_output_tokens"] == 13
    (tmp_path / "m.json").write_text(result.stdout)
    compare = [
        "cost",
        "compare",
        "--model",
        "Llama-3-8B",
        "--instance",
        "inf2.xlarge",
        "--load",
        "in=100,out=13",
    ]
    result = CliRunner().invoke(app, [*compare, "--from", str(tmp_path / "m.json"), "--json"])
    assert result.exit_code == 0, result.output
    throughput = json.loads(result.stdout)["throughput"]
    assert throughput["kind"] == "measured"
    assert throughput["output_tokens_per_s"] == pytest.approx(record["output_tokens_per_s"])


def test_a_trace_is_played_and_reported(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    server.engine.script = Script()
    (tmp_path / "t.csv").write_text("timestamp_ms,input_tokens,output_tokens\n0,5,6\n100,7,8\n300,9,10\n")
    before = len(server.engine.requests)
    result = CliRunner().invoke(
        app,
        ["bench", "--url", server.url, "--model", MODEL, "--trace", str(tmp_path / "t.csv"), "--speed", "10",
         "--warmup", "0", "--protocol", "invoke", "--html", str(tmp_path / "r.html")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "3 of 3 answered" in result.stdout
    limits = [request.sampling.max_tokens for request in server.engine.requests[before:]]
    assert sorted(limits) == [6, 8, 10]
    report = (tmp_path / "r.html").read_text()
    assert report.count("<svg") == 2
    assert "TPOT: of one answer" in report


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--url", "127.0.0.1"], "--url 127.0.0.1: it begins with http://"),
        (["--protocol", "grpc"], "--protocol grpc: there are converse, invoke, openai"),
        (["--rate", "0"], "the rate is 0"),
        (["--requests", "0"], "--requests has to be at least 1"),
        (["--slo", "fast"], "--slo fast"),
        (["--trace", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_the_command_says_what_is_wrong(options: list[str], problem: str) -> None:
    result = CliRunner().invoke(app, ["bench", "--url", "http://127.0.0.1:9", "--model", MODEL, *options])
    assert result.exit_code == 2
    assert problem in result.stderr.replace("\n", " ")


def test_a_server_that_is_not_there_is_an_error(server: Server) -> None:
    result = CliRunner().invoke(
        app, ["bench", "--url", "http://127.0.0.1:9", "--model", MODEL, "--requests", "2", "--rate", "99"]
    )
    assert result.exit_code == 1
    assert "2 requests failed: ConnectionRefusedError" in result.stdout
