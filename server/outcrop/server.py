"""A running server: engine processes first, then HTTP; taken down in the reverse order."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

import uvloop

from outcrop.cli.display import Display
from outcrop.engine.client import EngineUnavailable
from outcrop.engine.process_client import ProcessClient
from outcrop.settings import ModelSettings, Settings

if TYPE_CHECKING:
    from outcrop.http_server import HttpServer


def run(settings: Settings) -> int:
    """Serve until a signal or a failure; the exit status of the process."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    display = Display(sys.stderr)
    try:
        return uvloop.run(_serve(settings, display))
    except (ValueError, OSError) as error:
        # Checkpoint, tokenizer and address errors say what is wrong and where; a traceback adds nothing.
        display.error(str(error))
        return 1


async def _serve(settings: Settings, display: Display) -> int:
    engines = [await asyncio.to_thread(_engine, model, settings, display) for model in settings.models]
    # Engines take seconds to load, so they begin before this process imports what HTTP needs.
    starting = [asyncio.create_task(engine.start()) for engine in engines]
    try:
        server = await asyncio.to_thread(_http_server, settings, engines)
        watch = asyncio.create_task(_watch(engines, starting, server, settings, display))
        try:
            await server.serve()
        except SystemExit:  # uvicorn could not bind, and has logged why
            return 1
        finally:
            watch.cancel()
        (failed,) = await asyncio.gather(watch, return_exceptions=True)
        return 1 if failed is True else 0
    finally:
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)
        await asyncio.gather(*(engine.close() for engine in engines))


def _engine(model: ModelSettings, settings: Settings, display: Display) -> ProcessClient:
    if model.backend == "fake":  # it has no weights to tell it the size of the vocabulary
        from outcrop.text.tokenizer import load_tokenizer

        config = model.engine_config(vocab_size=load_tokenizer(model.path).vocab_size)
    else:
        config = model.engine_config()
    return ProcessClient(config, step_timeout=settings.step_timeout, on_progress=display.progress)


def _http_server(settings: Settings, engines: list[ProcessClient]) -> HttpServer:
    from outcrop.http_server import HttpServer, build_catalog

    return HttpServer(settings, build_catalog(settings, engines))


async def _watch(
    engines: list[ProcessClient],
    starting: list[asyncio.Task[None]],
    server: HttpServer,
    settings: Settings,
    display: Display,
) -> bool:
    """Say when the server is ready; end it, and return True, when an engine cannot be had."""
    try:
        await asyncio.gather(*starting)
        while not server.started:
            await asyncio.sleep(0.01)
        display.ready(settings.host, server.port, settings.region, settings.models[0].id)
        failures = [asyncio.create_task(engine.given_up()) for engine in engines]
        done, _ = await asyncio.wait(failures, return_when=asyncio.FIRST_COMPLETED)
        reason = done.pop().result()
    except EngineUnavailable as error:
        reason = str(error)
    display.error(reason)
    server.should_exit = True
    return True
