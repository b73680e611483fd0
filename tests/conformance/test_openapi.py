"""The OpenAPI document: what it says, and that the server does as it says."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from outcrop.api.bedrock import not_offered
from outcrop.api.error_kind import Kind
from outcrop.api.openapi import OpenApi

from ..api.server import Server, eventually
from .service import ROUTES

DESCRIBED_ROUTES = ROUTES.keys() - not_offered.OPERATIONS.keys()
DOCUMENT = dict(
    OpenApi(
        [route for name, route in ROUTES.items() if name in DESCRIBED_ROUTES and name != "openapi"]
    ).document
)
DESCRIBED = [found.ok() for found in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

CASES = [
    pytest.param(operation, mode, id=f"{operation.label}-{mode.value}")
    for operation in DESCRIBED
    for mode in GenerationMode
    # Any text is a path: without more to a request, nothing about it can be wrong.
    if mode is GenerationMode.POSITIVE or operation.body or operation.query or operation.headers
]

each = pytest.mark.parametrize(("operation", "mode"), CASES)


def test_the_server_publishes_it(http: httpx.Client) -> None:
    assert http.get("/openapi.json").raise_for_status().json() == DOCUMENT


def test_it_describes_every_route_that_is_offered() -> None:
    operations = [operation for path in DOCUMENT["paths"].values() for operation in path.values()]
    assert {operation["operationId"] for operation in operations} == DESCRIBED_ROUTES


def test_it_has_the_constraints_of_the_service() -> None:
    shapes = DOCUMENT["components"]["schemas"]
    assert shapes["Message"]["required"] == ["role", "content"]
    assert shapes["ContentBlock"]["maxProperties"] == 1
    assert shapes["InferenceConfiguration"]["properties"]["topP"] == {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
    }


def test_it_lists_every_error_of_the_table() -> None:
    listed = {
        (int(name.rpartition("-")[2]), code)
        for name, response in DOCUMENT["components"]["responses"].items()
        for code in response["headers"]["x-amzn-ErrorType"]["schema"]["enum"]
    }
    assert listed == {(kind.status, kind.code) for kind in Kind}


def check(operation: Any, mode: GenerationMode, server: Server, patience: float, data: st.DataObject) -> None:
    case = data.draw(operation.as_strategy(generation_mode=mode))
    case.call_and_validate(base_url=server.url, checks=CHECKS, timeout=patience)
    eventually(lambda: server.engine.idle)


@each
@settings(max_examples=5, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_server_does_as_described(
    operation: Any, mode: GenerationMode, server: Server, patience: float, data: st.DataObject
) -> None:
    check(operation, mode, server, patience, data)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@each
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_server_does_as_described_at_length(
    operation: Any, mode: GenerationMode, server: Server, patience: float, data: st.DataObject
) -> None:
    check(operation, mode, server, patience, data)
