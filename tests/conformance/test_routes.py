"""The routes are those of the service's operations, and of nothing unknown."""

from __future__ import annotations

import re

import pytest

from ..api.shapes import CONTROL, RUNTIME
from .service import OPERATIONS, ROUTES

FOR_OPERATORS = {"live", "ready", "metrics", "openapi"}
OF_OTHERS = {
    "createCompletion",
    "createChatCompletion",
    "createResponse",
    "listModels",
    "retrieveModel",
    "createMessage",
    "countMessageTokens",
}


def without_names(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def test_every_route_is_an_operation() -> None:
    assert ROUTES.keys() - OPERATIONS.keys() == FOR_OPERATORS | OF_OTHERS


def test_every_operation_has_a_route() -> None:
    assert {*CONTROL.operation_names, *RUNTIME.operation_names} == OPERATIONS.keys()


@pytest.mark.parametrize("name", OPERATIONS)
def test_method_and_path(name: str) -> None:
    route, http = ROUTES[name], OPERATIONS[name].http
    assert http["method"] in (route.methods or ())
    assert without_names(route.path) == without_names(http["requestUri"])
