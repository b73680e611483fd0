"""A whole server under load, with clients that leave, engines that die and operators who end it. Streams are
as they would have been in peace, or end with a clear error; nothing hangs and nothing is left behind."""

import json
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectionError,
    EventStreamError,
    HTTPClientError,
)
from demo import PATH
from serving import ANY_MODEL, PATIENCE, Served, eventually, gone, serving

from outcrop.text.tokenizer import load_tokenizer

STREAMS = 64
LEAVERS = 16
POISON = " cyanide"  # one token


@dataclass(frozen=True)
class Call:
    """One ConverseStream request."""

    text: str
    tokens: int
    temperature: float = 0.0
    seed: int = 0

    @property
    def request(self) -> dict[str, Any]:
        return {
            "modelId": ANY_MODEL,
            "messages": [{"role": "user", "content": [{"text": self.text}]}],
            "inferenceConfig": {"maxTokens": self.tokens, "temperature": self.temperature},
            "additionalModelRequestFields": {"seed": self.seed},
        }


@dataclass(frozen=True)
class Answer:
    text: str
    stop_reason: str
    output_tokens: int


def ask(client: Any, call: Call, begun: Callable[[], object] = lambda: None) -> Answer:
    """The whole answer. begun: called when its first event is here."""
    text, stop_reason, usage = [], "", {}
    with closing(client.converse_stream(**call.request)["stream"]) as stream:
        for number, event in enumerate(stream):
            if number == 0:
                begun()
            if "contentBlockDelta" in event:
                text.append(event["contentBlockDelta"]["delta"]["text"])
            elif "messageStop" in event:
                stop_reason = event["messageStop"]["stopReason"]
            elif "metadata" in event:
                usage = event["metadata"]["usage"]
    return Answer("".join(text), stop_reason, usage["outputTokens"])


def make_calls() -> list[Call]:
    """Mixed lengths; greedy and seeded sampling."""
    dice = random.Random(7)
    return [
        Call(
            f"Question {index}: " + "tell me more, " * dice.randrange(12),
            tokens=dice.randrange(100, 260),
            temperature=(0.0, 0.8)[index % 2],
            seed=dice.randrange(2**31),
        )
        for index in range(STREAMS)
    ]


CALLS = make_calls()


def fake(folder: Path, *, model: str = "", server: str = "") -> tuple[str, str]:
    """Options: a configuration with the fake backend on the demo checkpoint's tokenizer."""
    config = folder / "outcrop.toml"
    table = f'path = "{PATH}"\nbackend = "fake"\nmax_model_len = 2048\nmax_rows = 64\n{model}'
    config.write_text(f"{server}\n[[models]]\n{table}\n")
    return "--config", str(config)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    """Each call's answer when nothing else runs."""
    folder = tmp_path_factory.mktemp("alone")
    with serving(folder, *fake(folder)) as server, closing(server.client()) as client:
        return [ask(client, call) for call in CALLS]


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose steps take a while, so that its answers overlap."""
    folder = tmp_path_factory.mktemp("busy")
    with serving(folder, *fake(folder, model="fake_step_ms = 8")) as server:
        yield server


def test_alone_every_answer_has_the_tokens_its_stop_reason_implies(alone: list[Answer]) -> None:
    for call, answer in zip(CALLS, alone, strict=True):
        if answer.stop_reason == "max_tokens":
            assert answer.output_tokens == call.tokens
        else:
            assert answer.stop_reason == "end_turn"
            assert answer.output_tokens < call.tokens
    assert len({answer.text for answer in alone}) == STREAMS
    assert sum(answer.stop_reason == "max_tokens" for answer in alone) > STREAMS // 2


# -- clients leave, engines die --------------------------------------------------------------------


def leave(server: Served, client: Any, number: int, stop: threading.Event) -> None:
    """Ask for much, again and again, and go away at a random moment: in the answer, before it, or in the
    middle of the request."""
    dice = random.Random(number)
    call = Call(f"Unheard {number}", tokens=1500, temperature=0.9, seed=number)
    while not stop.is_set():
        with suppress(ClientError, EventStreamError, HTTPClientError, ConnectionError, OSError):
            if number % 2:
                with closing(client.converse_stream(**call.request)["stream"]) as stream:
                    for _ in zip(range(dice.randrange(40)), stream, strict=False):
                        pass
            else:
                body = json.dumps({k: v for k, v in call.request.items() if k != "modelId"})
                head = f"POST /model/{ANY_MODEL}/converse HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
                sent = f"{head}\r\n\r\n{body}".encode()
                address = httpx.URL(server.url)
                with socket.create_connection((address.host, address.port), timeout=PATIENCE) as connection:
                    connection.sendall(sent[: -dice.randrange(1, 20) if number % 4 else None])
                    stop.wait(dice.uniform(0, 0.3))


def storm(server: Served, disturb: Callable[[Callable[[], int]], object]) -> list[Answer]:
    """All calls at once while others come and leave. disturb: runs when every stream has begun; told how
    to find the number of those that are still open."""
    begun = threading.Semaphore(0)
    stop = threading.Event()
    with (
        closing(server.client(max_pool_connections=STREAMS)) as client,
        closing(server.client(max_pool_connections=LEAVERS)) as leaving,
        ThreadPoolExecutor(STREAMS + LEAVERS) as pool,
    ):
        answers = [pool.submit(ask, client, call, begun.release) for call in CALLS]
        leavers = [pool.submit(leave, server, leaving, number, stop) for number in range(LEAVERS)]
        try:
            for _ in CALLS:
                assert begun.acquire(timeout=PATIENCE)
            disturb(lambda: sum(not answer.done() for answer in answers))
            return [answer.result(PATIENCE) for answer in answers]
        finally:
            stop.set()
            for leaver in leavers:
                leaver.result(PATIENCE)


def test_many_streams_while_others_leave(busy: Served, alone: list[Answer]) -> None:
    assert storm(busy, lambda still_open: None) == alone
    eventually(busy.is_idle, "an idle engine")
    assert busy.restarts == 0
    assert busy.metric("vllm:request_success_total", finished_reason="abort") > 0
    assert busy.metric("outcrop_http_requests_in_progress") == 1  # the question itself


def test_the_same_with_the_engine_killed_twice(busy: Served, alone: list[Answer]) -> None:
    before = busy.restarts

    def kill_twice(still_open: Callable[[], int]) -> None:
        for kill in (1, 2):
            assert still_open() > 0
            busy.signal_engine(signal.SIGKILL)
            eventually(lambda: busy.restarts == before + kill, "a restart")  # noqa: B023
            # A request that is in two crashes without a token in between is taken for their cause: let
            # everyone get on first.
            eventually(
                lambda: (
                    busy.metric("vllm:num_requests_running") >= still_open()
                    and busy.metric("vllm:generation_tokens_total") > 10 * STREAMS
                ),
                "progress",
            )

    assert storm(busy, kill_twice) == alone
    assert busy.restarts == before + 2
    eventually(busy.is_idle, "an idle engine")


def test_a_request_that_kills_the_engine_is_refused_and_the_others_finish(
    tmp_path: Path, alone: list[Answer]
) -> None:
    (token,) = load_tokenizer(PATH).encode_prompt(POISON)
    calls = CALLS[:6]
    assert not any(POISON in answer.text for answer in alone[: len(calls)])
    options = fake(tmp_path, model=f"fake_step_ms = 5\nfake_poison = {token}")
    with serving(tmp_path, *options) as server, closing(server.client()) as client:
        begun = threading.Semaphore(0)
        with ThreadPoolExecutor(len(calls)) as pool:
            answers = [pool.submit(ask, client, call, begun.release) for call in calls]
            for _ in calls:
                assert begun.acquire(timeout=PATIENCE)
            for operation in (client.converse, client.converse_stream):
                eventually(server.is_ready, "a ready engine")
                with pytest.raises(client.exceptions.ModelErrorException) as caught:
                    operation(**Call(f"Is{POISON} good for me?", tokens=10).request)
                response = caught.value.response
                assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
                assert response["originalStatusCode"] == 500
                assert response["Error"]["Message"] == "The model failed while processing your request."
            assert [answer.result(PATIENCE) for answer in answers] == alone[: len(calls)]
        assert server.restarts == 4
        eventually(server.is_ready, "a ready engine")
        assert ask(client, CALLS[0]) == alone[0]


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "at work"])
def test_a_stopped_engine_is_replaced(tmp_path: Path, alone: list[Answer], idle: bool) -> None:
    options = fake(tmp_path, model="fake_step_ms = 5", server="step_timeout = 1")
    with (
        serving(tmp_path, *options) as server,
        closing(server.client()) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        begun = threading.Event()
        if idle:
            server.signal_engine(signal.SIGSTOP)
        answer = pool.submit(ask, client, CALLS[0], begun.set)
        if not idle:
            assert begun.wait(PATIENCE)
            server.signal_engine(signal.SIGSTOP)
        assert answer.result(PATIENCE) == alone[0]
        assert server.restarts == 1
        assert "no step finished in" in server.output


def test_a_server_whose_engine_does_not_come_back_ends_and_says_why(tmp_path: Path) -> None:
    with serving(tmp_path, *fake(tmp_path, model="fake_step_ms = 5")) as server:
        with closing(server.client()) as client, ThreadPoolExecutor(1) as pool:
            begun = threading.Event()
            answer = pool.submit(ask, client, Call("Hi", tokens=1900), begun.set)
            assert begun.wait(PATIENCE)
            deadline = time.monotonic() + PATIENCE
            while server.process.poll() is None and time.monotonic() < deadline:
                for engine in server.engines():
                    with suppress(psutil.NoSuchProcess):
                        engine.kill()
            assert server.wait() == 1
            with pytest.raises(EventStreamError, match="serviceUnavailableException"):
                answer.result(PATIENCE)
        reason = server.output.splitlines()[-1]
        assert reason.startswith("outcrop: the engine failed to start 3 times in a row: "), server.output
        assert "SIGKILL" in reason
        assert "Traceback" not in server.output


# -- operators end it ------------------------------------------------------------------------------


@dataclass
class Open:
    """Streams that have begun."""

    answers: list[Any]
    pool: ThreadPoolExecutor


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Served]:
    """A server with four streams to come takes long enough over them to be ended meanwhile."""
    with serving(tmp_path, *fake(tmp_path, model="fake_step_ms = 20", server="drain_seconds = 60")) as server:
        yield server


@pytest.fixture
def sockets() -> Iterator[Path]:
    """Where servers keep their sockets: not below `tmp_path`, which is too long for the address of one."""
    with TemporaryDirectory(prefix="sockets-") as folder:
        yield Path(folder)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


def open_streams(server: Served, pool: ThreadPoolExecutor, tokens: int) -> list[Any]:
    """Four answers in progress."""
    begun = threading.Semaphore(0)
    client = server.client()
    calls = [Call(f"Count {index}", tokens=tokens, seed=index) for index in range(4)]
    answers = [pool.submit(ask, client, call, begun.release) for call in calls]
    for _ in calls:
        assert begun.acquire(timeout=PATIENCE)
    return answers


def refused(server: Served) -> bool:
    """Whether a new call is turned away, as it should be: with a 503, or no connection."""
    with closing(server.client(connect_timeout=PATIENCE)) as client:
        try:
            client.converse(**Call("Hi", tokens=1).request)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            return (status, error.response["Error"]["Code"]) == (503, "ServiceUnavailableException")
        except (ConnectionError, ConnectionClosedError, HTTPClientError):
            return True
        return False


def test_at_sigterm_open_streams_finish_and_new_calls_are_refused(
    slow: Served, pool: ThreadPoolExecutor
) -> None:
    answers = open_streams(slow, pool, tokens=150)
    slow.process.send_signal(signal.SIGTERM)
    eventually(lambda: refused(slow), "a refused call")
    assert not any(answer.done() for answer in answers)
    for answer in answers:
        ended = answer.result(PATIENCE)
        assert (ended.stop_reason, ended.output_tokens) == ("max_tokens", 150)
    assert slow.wait() == 0
    assert "Traceback" not in slow.output


def test_a_second_ctrl_c_ends_at_once(slow: Served, pool: ThreadPoolExecutor) -> None:
    answers = open_streams(slow, pool, tokens=1900)  # 38 seconds at least
    slow.process.send_signal(signal.SIGINT)
    eventually(lambda: refused(slow), "a refused call")
    slow.process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    assert slow.wait() == 0
    assert time.monotonic() - begun < 20
    for answer in answers:
        with pytest.raises(EventStreamError, match="serviceUnavailableException"):
            answer.result(PATIENCE)
    assert "Traceback" not in slow.output


def test_patience_with_open_streams_ends(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    options = fake(tmp_path, model="fake_step_ms = 20", server="drain_seconds = 1")
    with serving(tmp_path, *options) as server:
        answers = open_streams(server, pool, tokens=1900)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        for answer in answers:
            with pytest.raises(EventStreamError, match="serviceUnavailableException"):
                answer.result(PATIENCE)
        assert "Traceback" not in server.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_while_loading(tmp_path: Path, sockets: Path, number: signal.Signals) -> None:
    """With the real backend, which takes seconds to load."""
    with serving(tmp_path, wait=False, TMPDIR=str(sockets)) as server:
        eventually(lambda: bool(server.engines()), "an engine")
        server.process.send_signal(number)
        assert server.wait() == 0
        assert "Traceback" not in server.output
        assert not list(sockets.iterdir())


def test_nothing_is_left_of_a_server_that_is_killed(tmp_path: Path, sockets: Path) -> None:
    with serving(tmp_path, *fake(tmp_path), TMPDIR=str(sockets)) as server:
        assert list(sockets.iterdir())
        (engine,) = server.engines()
        server.process.kill()
        assert server.wait() == -signal.SIGKILL
        assert gone(engine)
        assert not list(sockets.iterdir())


def test_two_servers_cannot_have_one_port(slow: Served, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with serving(
        tmp_path / "second", "--backend", "fake", "--port", slow.url.rpartition(":")[2], wait=False
    ) as second:
        assert second.wait() == 1
        assert second.output.startswith("outcrop: cannot listen on 127.0.0.1, port ")
        assert len(second.output.splitlines()) == 1
