"""The client that measures, against a server that answers on cue."""

import asyncio
import socket
import time

import pytest
from benchmarks.load.completions import Call, CompletionError, Request, run_load
from benchmarks.load.figures import figures
from benchmarks.peers.completions_server import Generator, listen


class Paced(Generator):
    """Every call's tokens one at a time, in turn, `pause` seconds apart."""

    def __init__(self, pause: float) -> None:
        self.pause = pause

    def run(self, take):
        running = []
        while True:
            running += [[prompt, prompt.max_tokens] for prompt in take(not running)]
            time.sleep(self.pause)
            for each in running:
                each[0].emit(1)
                each[1] -= 1
            running = [each for each in running if each[1]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def load(generator: Generator, requests: list[Request], route: str = "/v1/completions") -> list[Call]:
    port = free_port()
    server = asyncio.create_task(listen(generator, port))
    await asyncio.sleep(0.2)
    try:
        return await run_load(f"http://127.0.0.1:{port}{route}", "any", requests)
    finally:
        server.cancel()


def test_each_call_gets_the_tokens_it_asked_for_one_by_one():
    calls = asyncio.run(load(Paced(0.001), [Request([1] * 600, 5), Request([2, 3], 9)]))
    assert [call.output_tokens for call in calls] == [5, 9]
    assert [len(call.pieces) for call in calls] == [5, 9]
    for call in calls:
        assert call.begun < call.pieces[0]
        assert call.pieces == sorted(call.pieces)


def test_a_call_that_gets_nothing_is_an_error():
    with pytest.raises(CompletionError, match="an answer without tokens"):
        asyncio.run(load(Paced(0.001), [Request([1], 4)], route="/v1/other"))


def test_figures_of_a_batch():
    calls = [
        Call(begun=10.0, pieces=[10.1, 10.2, 10.3], output_tokens=3),
        Call(begun=10.0, pieces=[10.3, 10.5, 10.7], output_tokens=3),
    ]
    found = figures(calls)
    assert found.ttft_p50 == pytest.approx(200)
    assert found.ttft_p99 == pytest.approx(300)
    assert found.tpot_p50 == pytest.approx(150)
    assert found.tpot_p99 == pytest.approx(200)
    assert found.decode_rate == pytest.approx(1000 / 150)
    assert found.throughput == pytest.approx(6 / 0.7)
