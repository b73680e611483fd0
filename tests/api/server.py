"""A real server on a free port of the loopback interface, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from outcrop.api.admission import ApiLimits
from outcrop.api.app import create_app
from outcrop.api.auth.authenticator import Authenticator
from outcrop.api.bedrock.options import ControlOptions
from outcrop.api.job_runner import JobOptions
from outcrop.catalog.catalog import Catalog
from outcrop.catalog.model import ServedModel
from outcrop.http_protocol import HttpProtocol
from outcrop.ledger.database import Database
from outcrop.telemetry.tracing import Tracing

from .doubles import ScriptedEngine, served

MODEL = "meta.llama3-8b-instruct-v1:0"
PATIENCE = 20.0
DATABASES: dict[str, Database] = {}
"""The state of each server, by its URL."""


class Server:
    """One running server. `engine` is its only model's, reached across threads: look, and set its script."""

    def __init__(
        self, app: FastAPI, engine: ScriptedEngine, uvicorn_server: uvicorn.Server, port: int
    ) -> None:
        self.app = app
        self.engine = engine
        self.uvicorn = uvicorn_server
        self.port = port
        self.url = f"{'https' if uvicorn_server.config.is_ssl else 'http'}://127.0.0.1:{port}"
        self.loop: asyncio.AbstractEventLoop | None = None

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the server's loop."""
        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    def call_soon(self, function: Callable[[], object]) -> None:
        assert self.loop is not None
        self.loop.call_soon_threadsafe(function)


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for a condition that another thread brings about; fails when it never does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition never came about"
        time.sleep(0.005)


@contextmanager
def running(
    engine: ScriptedEngine,
    *,
    limits: ApiLimits | None = None,
    demo: bool = True,
    wait_ready: bool = True,
    graceful: int = 5,
    keep_alive: int = 5,
    aliases: tuple[str, ...] = (),
    cache_block: int = 0,
    prompts: Path | None = None,
    authenticator: Authenticator | None = None,
    inspect: int = 0,
    certificate: Path | None = None,
    tracing: Tracing | None = None,
    control: ControlOptions | None = None,
    database: Database | None = None,
    others: Sequence[ServedModel] = (),
    size: int = 0,
    rows: int = 0,
    model_id: str = MODEL,
    checkpoint: Path | None = None,
) -> Iterator[Server]:
    """Serve one model from `engine` until the block ends, and others beside it. control: None for one that
    works on no jobs. size, rows: of the model. checkpoint: its tokenizer and chat template, if not those of
    the doubles."""
    database = database or Database(None)
    model = served(
        engine,
        model_id,
        checkpoint=checkpoint,
        aliases=aliases,
        cache_block=cache_block,
        size=size,
        rows=rows,
    )
    catalog = Catalog([model, *others], demo=demo)
    app = create_app(
        catalog,
        limits or ApiLimits(),
        prompts=prompts,
        authenticator=authenticator,
        control=control or ControlOptions(jobs=JobOptions(side_by_side=0)),
        database=database,
        inspect=inspect,
        tracing=tracing,
    )
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=HttpProtocol,
        loop="uvloop",
        server_header=False,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=graceful,
        timeout_keep_alive=keep_alive,
        ssl_certfile=certificate,
    )
    server = Server(app, engine, uvicorn.Server(config), listener.getsockname()[1])
    DATABASES[server.url] = database

    async def serve() -> None:
        server.loop = asyncio.get_running_loop()
        await server.uvicorn.serve(sockets=[listener])

    factory = config.get_loop_factory()
    thread = threading.Thread(target=lambda: asyncio.Runner(loop_factory=factory).run(serve()), daemon=True)
    thread.start()
    eventually(lambda: server.uvicorn.started)
    if wait_ready:
        eventually(lambda: catalog.ready)
    try:
        yield server
    finally:
        server.uvicorn.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the server did not stop"
