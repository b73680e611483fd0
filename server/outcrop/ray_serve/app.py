"""The application: `import_path: outcrop.ray_serve.app:build` of a Serve configuration.

Its deployments are `api`, which answers HTTP, and one for each model, named by the model's id. How many
replicas each has, and on what they are placed, is in Ray's own configuration of these deployments.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from outcrop.engine.client import EngineClient
from outcrop.http_server import DEMO_ID, build_app, build_authenticator, build_catalog
from outcrop.ledger.database import Database
from outcrop.ray_serve.client import RayEngine
from outcrop.ray_serve.replica import NEURON_CORES, EngineReplica
from outcrop.ray_serve.routing import PrefixRouter
from outcrop.replica_configs import cache_block, ranks, rows
from outcrop.settings import ModelSettings, Settings, load_settings
from outcrop.telemetry import logs

_ROUTING_STATS_SECONDS = 1.0
_HEALTH_SECONDS = 5.0
_LOGGING = {"enable_access_log": False}
"""A line for each call would be one for each look at an engine."""


def build(arguments: dict[str, Any]) -> Application:
    """arguments: `args` of the Serve configuration; `config` is the outcrop.toml, which every host has in the
    same place, as it has what is named in it. Raises ValueError and OSError for what cannot be."""
    if unknown := sorted(set(arguments) - {"config"}):
        raise ValueError(f"args: {', '.join(unknown)}: there is no such argument; there is config")
    config = arguments.get("config")
    settings = _served_by_ray(load_settings(config=Path(config) if config else None))
    return _api(settings).bind(*(_engine(model, settings) for model in settings.models))


def _served_by_ray(settings: Settings) -> Settings:
    """The settings, where Ray listens in place of the server. Callers are asked who they are unless
    `auth.mode` is "off": which addresses Ray listens on is not known here."""
    for name in ("tls_certificate", "tls_key"):
        if getattr(settings, name) is not None:
            raise ValueError(f"{name}: Ray listens; set ssl_certfile and ssl_keyfile of http_options instead")
    if any(model.cores is not None for model in settings.models):
        raise ValueError("cores: Ray hands NeuronCores out; leave it out")
    if settings.auth.mode != "auto":
        return settings
    return settings.model_copy(update={"auth": settings.auth.model_copy(update={"mode": "required"})})


def _name(model: ModelSettings) -> str:
    return model.id or DEMO_ID


def _engine(model: ModelSettings, settings: Settings) -> Application:
    deployment = serve.deployment(
        EngineReplica,
        name=_name(model),
        num_replicas=1,
        ray_actor_options=_resources(model),
        # What an engine cannot yet run waits with Ray, where another replica may get it.
        max_ongoing_requests=math.ceil((rows(model) or model.max_rows * model.replicas) * 1.25),
        graceful_shutdown_timeout_s=settings.drain_seconds,
        health_check_period_s=_HEALTH_SECONDS,
        logging_config=_LOGGING,
        request_router_config=RequestRouterConfig(
            request_router_class=PrefixRouter,
            request_router_kwargs={"block_size": cache_block(model)},
            request_routing_stats_period_s=_ROUTING_STATS_SECONDS,
        ),
    )
    return deployment.bind(model, settings)


def _resources(model: ModelSettings) -> dict[str, Any]:
    """Of a replica, which is one actor, so that all its cores are one host's."""
    if model.artifact is None:
        return {"num_cpus": 1}
    return {"num_cpus": 1, "resources": {NEURON_CORES: ranks(model.artifact) * model.replicas}}


def _api(settings: Settings) -> Any:
    names = [_name(model) for model in settings.models]

    def application() -> FastAPI:
        """Called in each replica of the API."""
        logs.configure(settings.log_level, settings.telemetry.log_format)
        engines = [RayEngine(serve.get_deployment_handle(name)) for name in names]
        catalog = build_catalog(settings, engines)
        database = Database(settings.state)
        database.open()
        authenticator = build_authenticator(settings, database)
        return build_app(settings, catalog, database, authenticator, _no_engine)

    return serve.deployment(
        serve.ingress(application)(),
        name="api",
        num_replicas=1,
        ray_actor_options={"num_cpus": 1},
        # Beyond `max_inflight` the API answers by itself, as Bedrock would.
        max_ongoing_requests=settings.max_inflight + 64,
        graceful_shutdown_timeout_s=settings.drain_seconds,
        health_check_period_s=_HEALTH_SECONDS,
        logging_config=_LOGGING,
    )


def _no_engine(model: ModelSettings) -> EngineClient:
    raise ValueError(
        "imported models have an engine on the host that they were imported on; under Ray, name the weights "
        "in a [[models]] table of the configuration"
    )
