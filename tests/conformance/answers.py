"""What a success of each operation must be."""

from __future__ import annotations

import httpx

from .service import OPERATIONS, assert_success
from .streams import assert_conversation, assert_native


def assert_answer(name: str, response: httpx.Response) -> None:
    """The modelled success, and what its stream must be besides."""
    operation = OPERATIONS[name]
    match name:
        case "ConverseStream":
            assert_conversation(operation, response)
        case "InvokeModelWithResponseStream":
            assert_native(operation, response)
        case _:
            assert_success(operation, response)
