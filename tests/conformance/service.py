"""The operations that this server implements, as botocore's service models describe them.

Which they are is read from the application's own routes, so that a new operation is tested by being there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import botocore.parsers
import httpx
from botocore.model import OperationModel
from starlette.routing import Route

from outcrop.api.app import create_app
from outcrop.catalog.catalog import Catalog

from ..api.doubles import ScriptedEngine, served
from ..api.shapes import CONTROL, RUNTIME, assert_fits
from . import surface

MODEL = "meta.llama3-8b-instruct-v1:0"
"""The one model of the servers under test."""

UNMODELLED_HEADERS = frozenset(
    f"x-amzn-bedrock-{name}"
    for name in (
        "input-token-count",
        "output-token-count",
        "cache-read-input-token-count",
        "cache-write-input-token-count",
        "invocation-latency",
    )
)
"""Headers that the service sends although its model lacks them: instrumentation reads them."""

UNMODELLED_EVENT_MEMBERS = ("p",)
"""Padding that the service adds to every event of a conversation."""


def _routes() -> dict[str, Route]:
    app = create_app(Catalog([served(ScriptedEngine())], demo=True))
    return {route.name: route for route in app.routes if isinstance(route, Route)}


def _operations() -> dict[str, OperationModel]:
    models = {name: model for model in (CONTROL, RUNTIME) for name in model.operation_names}
    known = {name: model for name, model in models.items() if name in ROUTES}
    return {name: model.operation_model(name) for name, model in known.items()}


ROUTES = _routes()
OPERATIONS = _operations()


def output_stream(operation: OperationModel) -> str | None:
    """The name of the output member that is an event stream, if one is."""
    return operation.get_event_stream_output() and operation.output_shape.event_stream_name


@dataclass(frozen=True, slots=True)
class Wire:
    """One request as it is sent. Unlike botocore's serializer it takes values of any JSON type, right or
    wrong, for the members of the body."""

    method: str
    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, operation: OperationModel, params: Mapping[str, Any]) -> Wire:
        """`params`: members of the operation's input by name; blobs of a JSON body are base64 already."""
        shape = operation.input_shape
        path, query, headers, document = operation.http["requestUri"], [], {}, dict(params)
        body: Any = document
        for name, member in shape.members.items() if shape else ():
            if name not in params:
                continue
            location, wire_name = member.serialization.get("location"), member.serialization.get("name", name)
            if location is not None:
                value = str(document.pop(name))
                if location == "uri":
                    path = path.replace(f"{{{wire_name}}}", quote(value, safe=""))
                elif location == "querystring":
                    query.append(f"{quote(wire_name)}={quote(value, safe='')}")
                else:
                    headers[wire_name] = value
            elif shape.serialization.get("payload") == name:
                body = document.pop(name)
        if operation.http["method"] == "GET":
            body = b""
        if not isinstance(body, bytes):
            body = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        return cls(
            operation.http["method"], "?".join([path, *(["&".join(query)] if query else [])]), body, headers
        )

    def send(self, http: httpx.Client, **headers: str) -> httpx.Response:
        """Where the request names `{a thing}` of `surface.MADE`, one is made for it first."""
        path, body = self.path, self.body
        for thing, make in surface.MADE.items():
            for mark in (thing, quote(thing, safe="")):
                if mark in path or mark.encode() in body:
                    made = make(http)
                    path = path.replace(mark, quote(made, safe=""))
                    body = body.replace(mark.encode(), made.encode())
        return http.request(self.method, path, content=body, headers={**self.headers, **headers})


@dataclass(frozen=True, slots=True)
class _RawStream:
    """What botocore's EventStream reads from."""

    content: bytes

    def stream(self) -> Iterator[bytes]:
        yield self.content

    def close(self) -> None:
        pass


def parse(operation: OperationModel, response: httpx.Response) -> dict[str, Any]:
    """The response by botocore's own parser. Of an event stream, the list of its parsed events; an
    exception in it raises botocore's EventStreamError."""
    stream = output_stream(operation) if response.status_code < 300 else None
    parsed = botocore.parsers.create_parser("rest-json").parse(
        {
            "status_code": response.status_code,
            "headers": response.headers,
            "body": _RawStream(response.content) if stream else response.content,
            "context": {"operation_name": operation.name},
        },
        operation.output_shape,
    )
    if stream:
        parsed[stream] = list(parsed[stream])
    return parsed


def assert_success(operation: OperationModel, response: httpx.Response) -> dict[str, Any]:
    """The response is the modelled success: status, headers where the model has them, and a body that
    fits the output shape. Returns it as botocore parses it."""
    assert response.status_code == operation.http["responseCode"], (response.status_code, response.text)
    assert response.headers["x-amzn-requestid"]
    shape = operation.output_shape
    located = {
        member.serialization.get("name", name).lower(): name
        for name, member in shape.members.items()
        if member.serialization.get("location") == "header"
    }
    unknown = {
        name
        for name in response.headers
        if name.startswith("x-amzn-bedrock-") and name not in located and name not in UNMODELLED_HEADERS
    }
    assert not unknown, f"headers that the model lacks: {unknown}"
    parsed = parse(operation, response)
    for name, member in shape.members.items():
        if member.serialization.get("location") == "header" and name in parsed:
            assert_fits(parsed[name], member, name)
    missing = set(shape.required_members) - parsed.keys()
    assert not missing, f"the response lacks {missing}"
    if "payload" not in shape.serialization:
        assert response.headers["content-type"] == "application/json"
        assert_fits(response.json(), shape)
    return parsed


def assert_error(operation: OperationModel, response: httpx.Response, code: str) -> str:
    """The response is the error `code` as the model has it, or as the service sends it where the model
    lacks it. Returns its message."""
    declared = {shape.name: shape for shape in operation.error_shapes}
    parsed = parse(operation, response)
    assert parsed["Error"]["Code"] == code, (response.status_code, response.text)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-amzn-errortype"].split(":")[0] == code
    assert response.headers["x-amzn-requestid"]
    if code in declared:
        assert response.status_code == declared[code].metadata["error"]["httpStatusCode"]
        assert_fits(response.json(), declared[code])
    message = parsed["Error"]["Message"]
    assert message
    return str(message)
