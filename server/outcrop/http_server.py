"""The HTTP side of a running server: the catalog of its settings, the application, and uvicorn."""

from __future__ import annotations

import asyncio
import functools
import gc
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from outcrop.api.admission import ApiLimits
from outcrop.api.app import create_app, drain, leave
from outcrop.api.auth.authenticator import Authenticator, utc_now
from outcrop.api.auth.keyring import AccessKey, Grant, KeyRing
from outcrop.api.auth.policy import ALLOW_ALL, Policy, key_policy
from outcrop.api.auth.shared_quota import SharedQuotas
from outcrop.api.bedrock.options import ControlOptions
from outcrop.api.imports.registry import ModelFiles
from outcrop.api.job_runner import JobOptions
from outcrop.catalog.catalog import Catalog
from outcrop.catalog.model import ServedModel
from outcrop.cli.display import Access
from outcrop.cost.served import Deployment, spend
from outcrop.engine.client import EngineClient
from outcrop.engine.on_demand import OnDemandEngine
from outcrop.http_protocol import HttpProtocol
from outcrop.key_store import key_store
from outcrop.ledger.allowance import Allowances
from outcrop.ledger.database import Database
from outcrop.replica_configs import cache_block, rows
from outcrop.settings import AuthSettings, ModelSettings, Settings
from outcrop.storage import Storage
from outcrop.telemetry.neuron_monitor import NeuronMonitor
from outcrop.telemetry.spend import Spend
from outcrop.telemetry.tracing import Tracing
from outcrop.text.chat_template import (
    ChatTemplate,
    ChatTemplateError,
    NoChatTemplate,
    load_chat_template,
)
from outcrop.text.tokenizer import load_tokenizer

DEMO_ID = "outcrop.demo"
"""The id a model is listed under when it was given none."""


def build_catalog(settings: Settings, engines: Sequence[EngineClient]) -> Catalog:
    """The models of `settings`, each with its tokenizer, chat template and engine. Raises ValueError and
    OSError where a checkpoint's text files are missing or broken."""
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
                cache_block=cache_block(model),
                size=_size(model),
                rows=rows(model),
            )
        )
    catalog = Catalog(models, demo=settings.demo, region=settings.region)
    for model, served in zip(settings.models, models, strict=True):
        for name in model.adapters:
            catalog.add(replace(served, id=name, name=name, aliases=(), adapter=name))
    return catalog


MakeEngine = Callable[[ModelSettings], EngineClient]


def load_imported(like: ModelSettings, make_engine: MakeEngine, files: ModelFiles) -> ServedModel:
    """An imported model, served with the settings of another and with an engine process of its own, which
    starts when the model is first asked. Raises ValueError and OSError."""
    if like.backend == "neuron":
        raise ValueError(
            "backend neuron serves what `outcrop compile build` made; build an artifact of the model, and "
            "serve that"
        )
    if like.url:
        raise ValueError(
            f"the vLLM server at {like.url} serves its own weights; serve the model with another server, or "
            "name its folder in a [[models]] table without a url"
        )
    changes = {
        "path": files.path, "id": files.model_id, "aliases": (), "name": files.name, "replicas": 1
    }  # fmt: skip
    settings = like.model_copy(update=changes)
    tokenizer = load_tokenizer(files.path)
    template: ChatTemplate
    try:
        template = load_chat_template(files.path, tokenizer)
    except ChatTemplateError as error:
        template = NoChatTemplate(str(error))
    return ServedModel(
        id=files.model_id,
        tokenizer=tokenizer,
        chat_template=template,
        engine=OnDemandEngine(files.name, lambda: make_engine(settings)),
        name=files.name,
        arn=files.arn,
        cache_block=cache_block(settings),
    )


def _size(model: ModelSettings) -> int:
    """Bytes of a model's files."""
    files: Iterable[Path]
    if model.artifact is not None:
        files = model.artifact.rglob("*")
    else:
        files = model.path.iterdir() if model.path.is_dir() else iter((model.path,))
    return sum(file.stat().st_size for file in files if file.is_file())


def build_key_ring(auth: AuthSettings, database: Database) -> KeyRing:
    """The keys that may call. Raises ValueError where they cannot be read or a secret is not set."""
    access_keys = []
    for each in auth.credentials:
        secret = os.environ.get(each.secret_env)
        if not secret:
            raise ValueError(
                f"auth.credentials: the secret of {each.access_key_id} is to be in the environment variable "
                f"{each.secret_env}, which is not set"
            )
        document = key_policy(each.policy, each.models)
        policy = ALLOW_ALL if document is None else Policy.parse(document)
        grant = Grant(each.access_key_id, each.name, each.tenant, policy, each.rpm, each.tpm)
        access_keys.append(AccessKey(grant, secret))
    return KeyRing(key_store(auth, database), access_keys)


def build_authenticator(settings: Settings, database: Database) -> Authenticator | None:
    """Who may call a server of these settings; None where it asks nobody. Raises ValueError."""
    if not settings.authenticated:
        return None
    return Authenticator(
        build_key_ring(settings.auth, database),
        region=settings.region if settings.auth.same_region else None,
        now=utc_now,
        clock=time.monotonic,
        shared=SharedQuotas(Allowances(settings.state)) if database.shared else None,
    )


def build_spend(settings: Settings, models: Iterable[str]) -> Spend:
    """What is told of costs. Raises ValueError for prices that are not known."""
    cost = settings.cost
    deployment = Deployment(cost.instance, cost.option, cost.instances, settings.region, cost.prices)
    return spend(deployment, models)


def build_tracing(settings: Settings) -> Tracing | None:
    """Where spans go, if anywhere. Raises ValueError where OpenTelemetry is not installed."""
    endpoint = settings.telemetry.otlp_endpoint
    return None if endpoint is None else Tracing.to_collector(endpoint)


def build_app(
    settings: Settings,
    catalog: Catalog,
    database: Database,
    authenticator: Authenticator | None,
    make_engine: MakeEngine,
) -> FastAPI:
    """The application of a server. database: open. make_engine: for models that are imported. Raises
    ValueError and OSError for settings that cannot be."""
    return create_app(
        catalog,
        ApiLimits(
            max_inflight=settings.max_inflight,
            strict=settings.strict,
            fault_injection=settings.fault_injection,
            seed=settings.seed,
        ),
        prompts=settings.prompts,
        authenticator=authenticator,
        database=database,
        spend=build_spend(settings, [model.id for model in catalog.models]),
        tracing=build_tracing(settings),
        neuron_monitor=NeuronMonitor(monitor) if (monitor := settings.telemetry.neuron_monitor) else None,
        inspect=settings.inspect,
        sagemaker=settings.sagemaker,
        control=ControlOptions(
            storage=Storage(settings.storage.folder, settings.storage.s3_endpoint),
            jobs=JobOptions(**dict(settings.jobs)),
            models=settings.storage.models.expanduser(),
            load_model=functools.partial(load_imported, settings.models[0], make_engine),
        ),
    )


class HttpServer(uvicorn.Server):
    """uvicorn that goes in order when it is told to end (SIGTERM): for `notice_seconds` it says that it goes
    and still takes calls, so that none is refused while load balancers notice; then it admits nothing more,
    and what is in progress is finished, for up to `drain_seconds`. The exit status is the caller's."""

    def __init__(self, settings: Settings, catalog: Catalog, make_engine: MakeEngine) -> None:
        self._catalog = catalog
        self._notice_seconds = settings.notice_seconds
        self._leaving = False
        database = Database(settings.state)
        database.open()
        self._authenticator = build_authenticator(settings, database)
        self._app = build_app(settings, catalog, database, self._authenticator, make_engine)
        super().__init__(
            uvicorn.Config(
                self._app,
                http=HttpProtocol,  # HTTP/1.1 and HTTP/2: the AWS SDK for JavaScript speaks the latter
                ws="none",
                lifespan="on",
                ssl_certfile=settings.tls_certificate,
                ssl_keyfile=settings.tls_key,
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
            )
        )

    @property
    def scheme(self) -> str:
        """That of its addresses."""
        return "https" if self.config.is_ssl else "http"

    @property
    def access(self) -> Access:
        """Whether callers need a key, and whether there is one."""
        if self._authenticator is None:
            return "open"
        return "keys" if self._authenticator.has_keys() else "no keys"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """What has been loaded by now stays until the end. A full garbage collection would look through all
        of it and hold every stream up for tens of milliseconds; from here on it looks at what came later."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        gc.collect()
        gc.freeze()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Give notice, or, at Ctrl-C and where nobody could have been told to call, begin to drain; a second
        signal ends the notice, a second Ctrl-C everything. (uvicorn's own version raises the signal again
        when all is done, which would turn a clean end into a failure.)"""
        if sig == signal.SIGTERM and self._notice_seconds and self._catalog.ready and not self._leaving:
            self._leaving = True
            self._loop.call_soon_threadsafe(self._give_notice)
            return
        drain(self._app)
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    def _give_notice(self) -> None:
        leave(self._app)
        # Who keeps a connection open is to find another server with its next call. Not in HTTP/2, whose
        # connections are told when they are closed.
        self.config.encoded_headers.append((b"connection", b"close"))
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        self._loop.call_later(self._notice_seconds, self._end_notice)

    def _end_notice(self) -> None:
        drain(self._app)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Also after a second Ctrl-C the application closes its engines, which ends the open streams; uvicorn
        would leave its lifespan to be cancelled."""
        await super().shutdown(sockets)
        if self.force_exit:
            await self.lifespan.shutdown()
