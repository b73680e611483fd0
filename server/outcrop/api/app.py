"""The ASGI application: routes, the layer around them, and the life of the engines behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route

from outcrop.api import errors
from outcrop.api.admission import ApiLimits
from outcrop.api.anthropic.routes import Anthropic
from outcrop.api.auth.access import guarded
from outcrop.api.auth.authenticator import Authenticator
from outcrop.api.auth.middleware import Authentication
from outcrop.api.bedrock import not_offered
from outcrop.api.bedrock.options import ControlOptions
from outcrop.api.bedrock.plane import ControlPlane
from outcrop.api.bedrock.routes import Bedrock
from outcrop.api.bedrock_runtime.routes import BedrockRuntime
from outcrop.api.envelope import Envelope
from outcrop.api.faults import FaultInjection
from outcrop.api.guardrails.store import GuardrailStore
from outcrop.api.health import Health
from outcrop.api.inference import Inference
from outcrop.api.inspector import Inspector
from outcrop.api.invocation_log.log import InvocationLog
from outcrop.api.observer import Observer
from outcrop.api.openai.routes import OpenAi
from outcrop.api.openapi import OpenApi
from outcrop.api.sagemaker import SageMaker
from outcrop.catalog.catalog import Catalog
from outcrop.ledger.database import Database
from outcrop.ledger.usage_ledger import UsageLedger
from outcrop.telemetry.event_loop import watch_lag
from outcrop.telemetry.metrics import Metrics
from outcrop.telemetry.neuron_monitor import NeuronMonitor
from outcrop.telemetry.spend import Spend
from outcrop.telemetry.tracing import Tracing

_DEFAULT_LIMITS = ApiLimits()
_DEFAULT_CONTROL = ControlOptions()


def create_app(
    catalog: Catalog,
    limits: ApiLimits = _DEFAULT_LIMITS,
    *,
    prompts: Path | None = None,
    authenticator: Authenticator | None = None,
    database: Database | None = None,
    spend: Spend | None = None,
    tracing: Tracing | None = None,
    neuron_monitor: NeuronMonitor | None = None,
    control: ControlOptions = _DEFAULT_CONTROL,
    inspect: int = 0,
    sagemaker: bool = False,
) -> FastAPI:
    """The API of one server on the models of `catalog`. prompts: the folder of its stored prompts.
    authenticator: who may call; None for everybody, which is for a server that only this machine reaches. It
    is closed with the application.
    database: of what outlives the server; None for one that does not. It is closed with the application.
    spend: what tokens cost, for the metrics. tracing: where spans go; it is closed with the application, too.
    neuron_monitor: whose metrics are passed on.
    inspect: how many of the last requests are kept for their developers to look at, with their answers; none
    where it is 0.
    sagemaker: whether it answers as a SageMaker container, too.

    The application's lifespan starts the engines without waiting for them, so the socket listens at once:
    until an engine is ready, /health/ready answers 503 and calls of its model ModelNotReadyException. When
    the lifespan ends, the engines are closed.
    """
    metrics = Metrics({model.id: model.engine for model in catalog.models}, spend, neuron_monitor)
    # Usage is kept where there is somebody to read it: a database that goes with the server has nobody.
    ledger = UsageLedger(database) if database is not None else None
    observer = Observer(metrics, ledger, tracing)
    inference = Inference(catalog, limits, observer, prompts)
    state = database or Database(None)
    background = inference.background()
    control_plane = Bedrock(ControlPlane(catalog, state, limits), background, metrics, control)
    lifespan = _Lifespan(catalog, control_plane, inference, background, authenticator, observer, state)
    operations = (
        *BedrockRuntime(inference, GuardrailStore(state)).routes(),
        *control_plane.routes(),
        *OpenAi(inference).routes(),
        *Anthropic(inference).routes(),
    )
    health = Health(catalog, inference.admission, metrics, explain=authenticator is None).routes()
    routes = _routes(operations, health, catalog, limits, control_plane.log, inspect)
    app = FastAPI(
        routes=[*routes],
        lifespan=lifespan.run,
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: _unknown_operation},
    )
    names = {route.endpoint: route.name for route in routes}
    app.add_middleware(Authentication, authenticator=authenticator, limits=limits)
    if sagemaker:
        app.add_middleware(SageMaker, model_id=catalog.models[0].id, limits=limits)
    app.add_middleware(Envelope, metrics=metrics, limits=limits, operations=names)
    app.state.admission = inference.admission
    app.state.background = background.admission
    return app


@dataclass(frozen=True, slots=True)
class _Lifespan:
    """What starts and ends with the application."""

    catalog: Catalog
    control_plane: Bedrock
    inference: Inference
    background: Inference
    authenticator: Authenticator | None
    observer: Observer
    state: Database

    @asynccontextmanager
    async def run(self, app: FastAPI) -> AsyncIterator[None]:
        await self.control_plane.start()
        if self.authenticator is not None:
            self.authenticator.start()
        tasks = [
            asyncio.create_task(self.catalog.start()),
            asyncio.create_task(watch_lag(self.observer.metrics.loop_lag.observe)),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.control_plane.close()
            await self.catalog.close()
            self.inference.close()
            self.background.close()
            if self.authenticator is not None:
                await self.authenticator.close()
            await self.observer.close()
            await asyncio.to_thread(self.state.close)


def _routes(
    operations: Sequence[Route],
    health: Sequence[Route],
    catalog: Catalog,
    limits: ApiLimits,
    log: InvocationLog,
    inspect: int,
) -> list[Route]:
    """Every route, behind the guard that asks what its caller may do."""
    services = [guarded(route, catalog) for route in operations]
    refused = [guarded(route, catalog) for route in not_offered.routes()]
    if limits.fault_injection:
        # Around the guard, which is to see a model's id without the fault behind it.
        injection = FaultInjection(limits)
        services = [injection.around(route) for route in services]
        refused = [injection.around(route) for route in refused]
    services = [log.around(route) for route in services]
    for_operators = [*health]
    if inspect:
        inspector = Inspector(inspect)
        services = [inspector.around(route) for route in services]  # outermost, to see what is really sent
        for_operators += inspector.routes()
    routes = [*services, *(guarded(route, catalog) for route in for_operators)]
    return [*routes, *(guarded(route, catalog) for route in OpenApi(routes).routes()), *refused]


def leave(app: FastAPI) -> None:
    """/health/ready turns 503, and calls are admitted as before: for as long as whatever balances the load
    takes to notice."""
    app.state.admission.leave()


def drain(app: FastAPI) -> None:
    """Stop admitting calls: /health/ready turns 503, and what is in progress goes on to its end."""
    app.state.admission.drain()
    app.state.background.drain()


async def _unknown_operation(request: Request, exc: Exception) -> NoReturn:
    """No route for this path and method."""
    raise errors.unknown_operation()
