"""A running server: engine processes, catalog and HTTP, joined from settings and taken down in order."""

from __future__ import annotations

import asyncio
import logging
import sys
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from outcrop.cli.display import Display
from outcrop.engine.client import EngineUnavailable
from outcrop.engine.config import EngineConfig
from outcrop.engine.process_client import ProcessClient
from outcrop.settings import ModelSettings, Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from outcrop.catalog.catalog import Catalog

logger = logging.getLogger(__name__)

DEMO_ID = "outcrop.demo"
"""The id a model is listed under when it was given none."""


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
    engines = [_engine(model, settings, display) for model in settings.models]
    # Engines take seconds to load: they begin before this process has imported what it needs itself.
    starting = [asyncio.create_task(engine.start()) for engine in engines]
    try:
        app, catalog = await asyncio.to_thread(_build_app, settings, engines)
        server = _Server(_uvicorn_config(settings, app), app)
        watching = asyncio.create_task(_watch(engines, starting, catalog, server, settings, display))
        await server.serve()
        watching.cancel()
        if not server.started:
            return 1
        return 1 if server.failed else 0
    finally:
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)
        await asyncio.gather(*(engine.close() for engine in engines))


def _engine(model: ModelSettings, settings: Settings, display: Display) -> ProcessClient:
    return ProcessClient(
        _engine_config(model), step_timeout=settings.step_timeout, on_progress=display.progress
    )


def _engine_config(model: ModelSettings) -> EngineConfig:
    if model.backend == "fake":  # it has no weights to tell it the size of the vocabulary
        from outcrop.text.tokenizer import load_tokenizer

        return model.engine_config(vocab_size=load_tokenizer(model.path).vocab_size)
    return model.engine_config()


def _build_app(settings: Settings, engines: list[ProcessClient]) -> tuple[FastAPI, Catalog]:
    from outcrop.api.admission import ApiLimits
    from outcrop.api.app import create_app
    from outcrop.catalog.catalog import Catalog
    from outcrop.catalog.model import ServedModel
    from outcrop.text.chat_template import load_chat_template
    from outcrop.text.tokenizer import load_tokenizer

    models = []
    for model, engine in zip(settings.models, engines, strict=True):
        tokenizer = load_tokenizer(model.path)
        models.append(
            ServedModel(
                id=model.id or DEMO_ID,
                tokenizer=tokenizer,
                chat_template=load_chat_template(model.path, tokenizer),
                engine=engine,
                name=model.name or model.path.stem,
                aliases=model.aliases,
            )
        )
    catalog = Catalog(models, demo=settings.demo, region=settings.region)
    return create_app(catalog, ApiLimits(max_inflight=settings.max_inflight)), catalog


def _uvicorn_config(settings: Settings, app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="zttp",
        http2=True,  # the AWS SDK for JavaScript speaks HTTP/2 by prior knowledge
        ws="none",
        log_config=None,
        log_level=settings.log_level,
        access_log=settings.log_level == "debug",
        timeout_graceful_shutdown=round(settings.drain_seconds),
        server_header=False,
    )


class _Server(uvicorn.Server):
    """uvicorn that first stops admitting calls when told to end; what is in progress is finished."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self.failed = False
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        from outcrop.api.app import drain

        drain(self._app)
        super().handle_exit(sig, frame)

    @property
    def port(self) -> int:
        return int(self.servers[0].sockets[0].getsockname()[1])


async def _watch(
    engines: list[ProcessClient],
    starting: list[asyncio.Task[None]],
    catalog: Catalog,
    server: _Server,
    settings: Settings,
    display: Display,
) -> None:
    """Say when the server is ready; end it when an engine cannot be had."""
    try:
        await asyncio.gather(*starting)
        while not server.started:
            await asyncio.sleep(0.01)
        model_id = catalog.foundation_models()[0].model_id
        display.ready(f"http://{settings.host}:{server.port}", settings.region, model_id)
        failures = [asyncio.create_task(engine.given_up()) for engine in engines]
        done, _ = await asyncio.wait(failures, return_when=asyncio.FIRST_COMPLETED)
        reason = done.pop().result()
    except EngineUnavailable as error:
        reason = str(error)
    display.error(reason)
    server.failed = server.should_exit = True
