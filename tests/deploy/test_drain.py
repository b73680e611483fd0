"""Servers are replaced one by one under load, as Kubernetes, Auto Scaling and systemd do it, and no request
fails.

The balancer is the client's: before each call it takes the next of those servers that were ready when it last
asked, which it does as often as a load balancer does, in small."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from demo import PATH
from serving import ANY_MODEL, PATIENCE, Served, eventually, serving

PERIOD = 0.1
NOTICE = 2.0
"""Twenty times as long as it takes to notice; a busy machine may be late."""
BODY = {"messages": [{"role": "user", "content": [{"text": "Count."}]}], "inferenceConfig": {"maxTokens": 20}}


def start(stack: ExitStack, folder: Path, notice: float = NOTICE) -> Served:
    folder.mkdir()
    config = folder / "outcrop.toml"
    config.write_text(
        f"notice_seconds = {notice}\ndrain_seconds = 60\n"
        f'[[models]]\npath = "{PATH}"\nbackend = "fake"\nfake_step_ms = 5\n'
    )
    return stack.enter_context(serving(folder, "--config", str(config)))


class Balancer:
    """Keeps connections open, asks /health/ready, and sends calls to who is ready."""

    def __init__(self) -> None:
        self.servers: list[Served] = []
        self.ready: list[Served] = []
        self.outcomes: Counter[str] = Counter()
        self.closing = 0
        self.stop = threading.Event()
        self._turn = itertools.count()
        self._http = httpx.Client(timeout=PATIENCE, limits=httpx.Limits(max_keepalive_connections=50))
        self._checks = httpx.Client(timeout=1)

    def __enter__(self) -> Balancer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()
        self._checks.close()

    def watch(self) -> None:
        while not self.stop.is_set():
            self.ready = [each for each in self.servers if self._is_ready(each)]
            time.sleep(PERIOD)

    def _is_ready(self, server: Served) -> bool:
        try:
            return self._checks.get(f"{server.url}/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def call(self) -> None:
        while not self.stop.is_set():
            ready = self.ready
            server = ready[next(self._turn) % len(ready)]
            try:
                answer = self._http.post(f"{server.url}/model/{ANY_MODEL}/converse", json=BODY)
                self.outcomes[str(answer.status_code)] += 1
                self.closing += answer.headers.get("connection") == "close"
            except httpx.TransportError as error:
                self.outcomes[repr(error)] += 1


@pytest.mark.slow
def test_no_request_fails_while_servers_are_replaced(tmp_path: Path) -> None:
    with Balancer() as balancer, ExitStack() as stack, ThreadPoolExecutor(6) as pool:
        balancer.servers = [start(stack, tmp_path / f"old-{index}") for index in range(2)]
        balancer.ready = list(balancer.servers)
        work = [pool.submit(balancer.watch), *(pool.submit(balancer.call) for _ in range(4))]
        try:
            for index, old in enumerate(list(balancer.servers)):
                new = start(stack, tmp_path / f"new-{index}")
                balancer.servers.append(new)
                eventually(lambda new=new: new in balancer.ready, "the new server's turn")
                old.process.send_signal(signal.SIGTERM)
                eventually(lambda old=old: old not in balancer.ready, "a server that says it goes")
                assert old.process.poll() is None, "it went without notice"
                assert httpx.get(f"{old.url}/health/ready").json()["status"] == "draining"
                assert old.wait() == 0
                balancer.servers.remove(old)
        finally:
            balancer.stop.set()
        for each in work:
            each.result(PATIENCE)
    assert set(balancer.outcomes) == {"200"}, balancer.outcomes
    assert balancer.outcomes["200"] > 50
    assert balancer.closing > 0, "connections were kept to servers that go"


def test_a_second_signal_ends_the_notice(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = start(stack, tmp_path / "server", notice=10 * PATIENCE)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: not server.is_ready(), "a server that says it goes")
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "Traceback" not in server.output
