"""How to provoke the errors that the service declares: what really causes each, where that can be arranged.
The others are injected."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from botocore.model import OperationModel

from outcrop.api.admission import ApiLimits
from outcrop.api.app import drain
from outcrop.api.auth.authenticator import Authenticator, utc_now
from outcrop.api.auth.keyring import KeyRing
from outcrop.api.auth.keys import KeyStore
from outcrop.api.bedrock import not_offered
from outcrop.backends.fake import FakeHooks
from outcrop.engine.client import EngineClient, EngineUnavailable

from ..api.doubles import Script, ScriptedEngine
from ..api.server import Server, eventually, running
from . import surface
from .engine import FakeEngine
from .service import OPERATIONS, Wire

Cause = Callable[[OperationModel], httpx.Response]
"""Arranges the cause and makes the call that suffers from it."""

FAULT = "x-outcrop-fault"
GENERATING = frozenset({"Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream"})
"""Operations that run the model."""

_COUNTED = GENERATING | {"CountTokens"}
"""Operations that give a model work: admitted, and counted against quotas."""


@contextlib.contextmanager
def client(engine: EngineClient, **options: Any) -> Iterator[tuple[Server, httpx.Client]]:
    with running(engine, **options) as server, httpx.Client(base_url=server.url, timeout=30) as http:
        yield server, http


def call(
    operation: OperationModel, http: httpx.Client, *, text: str = "Hi", **headers: str
) -> httpx.Response:
    """A valid call. text: what it says to the model."""
    params = surface.request(operation, text)
    return Wire.of(operation, params).send(http, **headers)


# -- causes ----------------------------------------------------------------------------------------


def bad_value(operation: OperationModel) -> httpx.Response:
    """A value that the service's model forbids."""
    name = "byProvider" if operation.name == "ListFoundationModels" else surface.MODEL_MEMBER[operation.name]
    with client(ScriptedEngine()) as (_, http):
        return Wire.of(operation, surface.request(operation) | {name: "?!"}).send(http)


def unknown_model(operation: OperationModel) -> httpx.Response:
    """A well-formed id of a model that a server with explicit ids does not have."""
    with client(ScriptedEngine(), demo=False) as (_, http):
        name = surface.MODEL_MEMBER[operation.name]
        params = surface.request(operation) | {name: "meta.llama9-1b-instruct-v1:0"}
        return Wire.of(operation, params).send(http)


def retired_model(operation: OperationModel) -> httpx.Response:
    """A model past its end of life, on a server that is as strict as the service."""
    with client(ScriptedEngine()) as (_, http):
        params = surface.request(operation) | {"modelId": "meta.llama3-2-1b-instruct-v1:0"}
        return Wire.of(operation, params).send(http, **{"x-outcrop-strict": "true"})


@contextlib.contextmanager
def keyed(**fields: Any) -> Iterator[tuple[httpx.Client, dict[str, str]]]:
    """A server that asks for keys, and the header of the only one. fields: of the key."""
    with tempfile.TemporaryDirectory() as folder:
        store = KeyStore(Path(folder) / "keys.json")
        _, token = store.create(time.time(), **fields)
        authenticator = Authenticator(KeyRing(store), region=None, now=utc_now, clock=time.monotonic)
        with client(ScriptedEngine(), authenticator=authenticator) as (_, http):
            yield http, {"authorization": f"Bearer {token}"}


def denied(operation: OperationModel) -> httpx.Response:
    """A key whose policy allows something else."""
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "bedrock:CreateEvaluationJob", "Resource": "*"}],
    }
    with keyed(policy=policy) as (http, headers):
        return call(operation, http, **headers)


def quota(operation: OperationModel) -> httpx.Response:
    """A key that has made as many calls this minute as it may."""
    with keyed(rpm=1) as (http, headers):
        call(operation, http, **headers).raise_for_status()
        return call(operation, http, **headers)


def overload(operation: OperationModel) -> httpx.Response:
    """As many generations as are admitted are in progress."""
    engine = ScriptedEngine(script=Script(hold=True))
    with client(engine, limits=ApiLimits(max_inflight=1)) as (_, http):
        held = Wire.of(OPERATIONS["ConverseStream"], surface.request(OPERATIONS["ConverseStream"]))
        with http.stream(held.method, held.path, content=held.body) as response:
            frames = response.iter_raw()  # kept: a client that drops it hangs up
            next(frames)
            return call(operation, http)


def draining(operation: OperationModel) -> httpx.Response:
    """The server is about to stop."""
    with client(ScriptedEngine()) as (server, http):
        server.call_soon(lambda: drain(server.app))
        eventually(lambda: server.app.state.admission.draining)
        return call(operation, http)


def engine_down(operation: OperationModel) -> httpx.Response:
    """The device fails under the request, and the engine with it."""
    with client(FakeEngine(FakeHooks(poison=ord("!")))) as (_, http):
        return call(operation, http, text="!")


def starting(operation: OperationModel) -> httpx.Response:
    """The engine still loads the model."""
    engine = ScriptedEngine(starts_at_once=False)
    with client(engine, wait_ready=False) as (server, http):
        response = call(operation, http)
        server.call_soon(engine.release.set)
        return response


def not_finite(operation: OperationModel) -> httpx.Response:
    """The model computes NaN for the request."""
    with client(FakeEngine(FakeHooks(nan=ord("!")))) as (_, http):
        return call(operation, http, text="!")


def defect(operation: OperationModel) -> httpx.Response:
    """Something raises what nobody foresaw."""
    with client(ScriptedEngine(script=Script(error=RuntimeError("a defect")))) as (_, http):
        return call(operation, http)


# -- causes in the middle of a stream --------------------------------------------------------------


def not_finite_later(operation: OperationModel) -> httpx.Response:
    """The model computes NaN once it has said something."""
    hooks = FakeHooks()
    engine = FakeEngine(hooks)

    def then_fail(step: Any) -> None:
        hooks.nan = int(engine.core.backend._last[step.slots[0]])  # type: ignore[attr-defined]

    hooks.on_step = then_fail
    with client(engine) as (_, http):
        return call(operation, http)


def engine_down_later(operation: OperationModel) -> httpx.Response:
    """The engine fails once the answer has begun."""
    script = Script(error=EngineUnavailable("gone"), fail_after=1)
    with client(ScriptedEngine(script=script)) as (_, http):
        return call(operation, http)


def defect_later(operation: OperationModel) -> httpx.Response:
    with client(ScriptedEngine(script=Script(error=RuntimeError("a defect"), fail_after=1))) as (_, http):
        return call(operation, http)


_REAL: dict[str, tuple[Cause, frozenset[str]]] = {
    "AccessDeniedException": (denied, frozenset(OPERATIONS) - not_offered.OPERATIONS.keys()),
    "ValidationException": (bad_value, frozenset({*surface.MODEL_MEMBER, "ListFoundationModels"})),
    "ResourceNotFoundException": (unknown_model, frozenset({"GetFoundationModel"})),
    "ThrottlingException": (overload, _COUNTED),
    "ServiceUnavailableException": (draining, _COUNTED),
    "InternalServerException": (defect, GENERATING),
    "ModelNotReadyException": (starting, GENERATING),
    "ModelErrorException": (not_finite, GENERATING),
}
"""Errors whose cause can be arranged, and for which operations."""

OTHER_CAUSES: list[tuple[str, str, Cause]] = [
    *((name, "ThrottlingException", quota) for name in sorted(_COUNTED)),
    *((name, "ServiceUnavailableException", engine_down) for name in sorted(GENERATING)),
    *((name, "ResourceNotFoundException", retired_model) for name in sorted(_COUNTED)),
]
"""Further causes of the same errors."""

_REAL_IN_STREAM: dict[str, Cause] = {
    "internalServerException": defect_later,
    "modelStreamErrorException": not_finite_later,
    "serviceUnavailableException": engine_down_later,
}


def cause_of(operation: OperationModel, code: str) -> Cause | None:
    """What provokes this error of this operation, if it can be arranged."""
    cause, operations = _REAL.get(code, (None, frozenset()))
    return cause if operation.name in operations else None


def cause_in_stream(event: str) -> Cause | None:
    """What provokes this exception, named as its event is, once a stream has begun."""
    return _REAL_IN_STREAM.get(event)
