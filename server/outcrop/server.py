"""A running server: engine processes first, then HTTP; taken down in the reverse order."""

from __future__ import annotations

import asyncio
import functools
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvloop

from outcrop.cli.display import Display
from outcrop.engine.client import EngineUnavailable
from outcrop.engine.config import EngineConfig
from outcrop.engine.replicas import ReplicaSet
from outcrop.replica_configs import cache_block, replica_configs
from outcrop.settings import ModelSettings, Settings
from outcrop.telemetry import logs

if TYPE_CHECKING:
    from outcrop.http_server import HttpServer
    from outcrop.rollover import Rollover


def run(settings: Settings, load: Callable[[], Settings]) -> int:
    """Serve until a signal or a failure; the exit status of the process. load: reads the settings again, at
    SIGHUP."""
    logs.configure(settings.log_level, settings.telemetry.log_format)
    display = Display(sys.stderr, [model.id or "" for model in settings.models])
    try:
        return uvloop.run(_serve(settings, load, display))
    except asyncio.CancelledError:
        return 0  # told to end before the server was up
    except (ValueError, OSError) as error:
        # Checkpoint, tokenizer and address errors say what is wrong and where; a traceback adds nothing.
        display.error(str(error))
        return 1


def claim(host: str, port: int) -> socket.socket:
    """A socket bound to the address, not listening yet: whether the server can have the address is known
    before anything is loaded. Raises OSError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # Where a name such as localhost has addresses of both kinds, clients try IPv4 in any case.
        family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        claimed = socket.socket(family, kind, protocol)
        try:
            claimed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            claimed.bind(address)
        except OSError:
            claimed.close()
            raise
    except OSError as error:
        raise OSError(f"cannot listen on {host}, port {port}: {error.strerror}") from None
    return claimed


async def _serve(settings: Settings, load: Callable[[], Settings], display: Display) -> int:
    _end_at_signals()
    engines: list[ReplicaSet] = []
    starting: list[asyncio.Task[None]] = []
    with claim(settings.host, settings.port) as listener:
        try:
            for index, model in enumerate(settings.models):
                engine = await asyncio.to_thread(
                    build_engine, model, settings, functools.partial(display.progress, index)
                )
                engines.append(engine)
                # Engines take seconds to load, so they begin before this process imports what HTTP needs.
                starting.append(asyncio.create_task(engine.start()))
            server, rollover = await asyncio.to_thread(_http_server, settings, load, engines)
            updating = _update_at_hangup(rollover)
            watch = asyncio.create_task(_watch(engines, starting, server, listener, settings, display))
            try:
                await server.serve(sockets=[listener])
            finally:
                watch.cancel()
                for task in updating:
                    task.cancel()
                await asyncio.wait([watch, *updating])
            return 0 if watch.cancelled() else watch.result()
        finally:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
            await asyncio.gather(*(engine.close() for engine in engines))


def _end_at_signals() -> None:
    """Until uvicorn takes the signals over, they end the loading in an orderly way."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(task.cancel))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # there is nothing to update yet


def _update_at_hangup(rollover: Rollover) -> set[asyncio.Task[None]]:
    """SIGHUP, which nothing heeds while the server starts, brings changed models into service. The updates in
    progress."""
    updating: set[asyncio.Task[None]] = set()

    def update() -> None:
        task = asyncio.create_task(rollover.run())
        updating.add(task)
        task.add_done_callback(updating.discard)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, update)
    return updating


def _configure(model: ModelSettings) -> list[EngineConfig]:
    """What each engine process of a model is told. Raises ValueError and OSError."""
    if model.backend == "fake":  # it has no weights to tell it the size of the vocabulary
        from outcrop.text.tokenizer import load_tokenizer

        return replica_configs(model, vocab_size=load_tokenizer(model.path).vocab_size)
    return replica_configs(model)


def build_engine(
    model: ModelSettings,
    settings: Settings,
    on_progress: Callable[[str, float], None] = lambda stage, fraction: None,
) -> ReplicaSet:
    """The engine processes of a model on this machine, not yet started. Raises ValueError and OSError."""
    return ReplicaSet(
        _configure(model),
        block_size=cache_block(model),
        step_timeout=settings.step_timeout,
        on_progress=on_progress,
        name=model.id or model.path.stem,
    )


def _http_server(
    settings: Settings, load: Callable[[], Settings], engines: list[ReplicaSet]
) -> tuple[HttpServer, Rollover]:
    from outcrop.http_server import HttpServer, build_catalog
    from outcrop.rollover import Rollover

    def make_engine(model: ModelSettings) -> ReplicaSet:
        """For a model that is imported: its start is no business of the display."""
        return build_engine(model, settings)

    catalog = build_catalog(settings, engines)
    rollover = Rollover(settings, load, _configure, engines, catalog.models)
    return HttpServer(settings, catalog, make_engine), rollover


async def _watch(
    engines: list[ReplicaSet],
    starting: list[asyncio.Task[None]],
    server: HttpServer,
    listener: socket.socket,
    settings: Settings,
    display: Display,
) -> int:
    """Say when the server is ready; end it when an engine cannot be had. The exit status."""
    try:
        await asyncio.gather(*starting)
        while not server.started:
            await asyncio.sleep(0.01)
        port, model = listener.getsockname()[1], settings.models[0].id
        display.ready(settings.host, port, settings.region, model, access=server.access, scheme=server.scheme)
        reason = await _first_given_up(engines, display)
    except EngineUnavailable as error:
        reason = str(error)
    if server.should_exit:
        return 0  # the engines end because the server does
    server.should_exit = True
    display.error(reason)
    return 1


async def _first_given_up(engines: list[ReplicaSet], display: Display) -> str:
    """Why an engine cannot be had. One that was drained is no reason to end: a server that is started again
    would load on the hardware that failed, while one that is up and not ready says so, and is left out by
    whatever balances the load."""
    waiting = {asyncio.create_task(engine.given_up()): engine for engine in engines}
    while waiting:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            engine = waiting.pop(task)
            if not engine.drained:
                return task.result()
            display.error(f"{engine.drained}; the server is not ready any more, and stays up to say so")
    forever: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    return await forever  # `_serve` cancels it at the end
