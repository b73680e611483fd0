"""How to provoke each error that the service declares: by what really causes it where that can be arranged,
else by injecting it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from botocore.model import OperationModel

from outcrop.api.admission import ApiLimits
from outcrop.api.app import drain
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


@contextlib.contextmanager
def client(engine: EngineClient, **options: Any) -> Iterator[tuple[Server, httpx.Client]]:
    with running(engine, **options) as server, httpx.Client(base_url=server.url, timeout=30) as http:
        yield server, http


def call(operation: OperationModel, http: httpx.Client, *, text: str = "Hi", **headers: str) -> httpx.Response:
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


def injected(code: str) -> Cause:
    """The call asks for the error."""

    def cause(operation: OperationModel) -> httpx.Response:
        with client(ScriptedEngine(), limits=ApiLimits(fault_injection=True)) as (_, http):
            return call(operation, http, **{FAULT: code})

    return cause


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


def injected_later(code: str) -> Cause:
    def cause(operation: OperationModel) -> httpx.Response:
        with client(ScriptedEngine(), limits=ApiLimits(fault_injection=True)) as (_, http):
            return call(operation, http, **{FAULT: f"break-after=1:{code}"})

    return cause


_REAL: dict[str, tuple[Cause, frozenset[str]]] = {
    "ValidationException": (bad_value, frozenset({*surface.MODEL_MEMBER, "ListFoundationModels"})),
    "ResourceNotFoundException": (unknown_model, frozenset({"GetFoundationModel"})),
    "ThrottlingException": (overload, GENERATING),
    "ServiceUnavailableException": (draining, GENERATING),
    "InternalServerException": (defect, GENERATING),
    "ModelNotReadyException": (starting, GENERATING),
    "ModelErrorException": (not_finite, GENERATING),
}
"""Errors whose cause can be arranged, and for which operations."""

_REAL_IN_STREAM: dict[str, Cause] = {
    "internalServerException": defect_later,
    "modelStreamErrorException": not_finite_later,
    "serviceUnavailableException": engine_down_later,
}


def cause_of(operation: OperationModel, code: str) -> Cause:
    """What provokes this error of this operation."""
    cause, operations = _REAL.get(code, (None, frozenset()))
    return cause if cause is not None and operation.name in operations else injected(code)


def cause_in_stream(event: str) -> Cause:
    """What provokes this exception, named as its event is, once a stream has begun."""
    return _REAL_IN_STREAM.get(event) or injected_later(event[0].upper() + event[1:])
