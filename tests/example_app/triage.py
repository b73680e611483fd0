"""Triage of support tickets by a model on Amazon Bedrock: an ordinary application, which knows no Outcrop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError, HTTPClientError
from urllib3.exceptions import HTTPError

MODEL = "meta.llama3-1-8b-instruct-v1:0"
TEAMS = ("billing", "technical", "account")
PRIORITIES = ("low", "normal", "urgent")

_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 3}, read_timeout=30)
_TRANSIENT = {
    "InternalServerException",
    "ModelErrorException",
    "ModelNotReadyException",
    "ModelTimeoutException",
    "ServiceUnavailableException",
    "ThrottlingException",
}
_SYSTEM = [{"text": "You route the tickets of a software company to the team that can help."}]
_ROUTE = {
    "toolSpec": {
        "name": "route_ticket",
        "description": "Hand a ticket to a team.",
        "inputSchema": {
            "json": {
                "type": "object",
                "properties": {
                    "team": {"type": "string", "enum": list(TEAMS)},
                    "priority": {"type": "string", "enum": list(PRIORITIES)},
                },
                "required": ["team", "priority"],
            }
        },
    }
}


@dataclass(frozen=True)
class Route:
    """Where a ticket goes. Without a team a person has to decide."""

    team: str | None
    priority: str


FOR_A_PERSON = Route(None, "normal")


class SummaryInterrupted(Exception):
    """The summary ended before its time; `partial` is what there is of it."""

    def __init__(self, partial: str) -> None:
        super().__init__("the summary is incomplete")
        self.partial = partial


class Triage:
    """Routes and summarizes tickets. A ticket is never lost because the model is not to be had."""

    def __init__(self, config: Config = _CONFIG) -> None:
        self._bedrock = boto3.client("bedrock-runtime", config=config)

    def close(self) -> None:
        self._bedrock.close()

    def route(self, ticket: str) -> Route:
        """Ask the model for a team; leave it to a person where the model has none to offer. What is wrong
        with the request itself is raised."""
        try:
            answer = self._bedrock.converse(
                modelId=MODEL,
                system=_SYSTEM,
                messages=_asking(f"Route this ticket:\n{ticket}"),
                toolConfig={"tools": [_ROUTE], "toolChoice": {"tool": {"name": "route_ticket"}}},
                inferenceConfig={"maxTokens": 64, "temperature": 0},
            )
        except HTTPClientError:
            return FOR_A_PERSON
        except ClientError as error:
            if error.response["Error"]["Code"] in _TRANSIENT:
                return FOR_A_PERSON
            raise
        calls = [block["toolUse"] for block in answer["output"]["message"]["content"] if "toolUse" in block]
        return Route(**calls[0]["input"]) if answer["stopReason"] == "tool_use" else FOR_A_PERSON

    def summary(self, ticket: str) -> Iterator[str]:
        """The summary, piece by piece as it is written. Raises SummaryInterrupted."""
        answer = self._bedrock.converse_stream(
            modelId=MODEL,
            messages=_asking(f"Summarize this ticket in one sentence:\n{ticket}"),
            inferenceConfig={"maxTokens": 32},
        )
        written = ""
        try:
            for event in answer["stream"]:
                if "contentBlockDelta" in event:
                    piece = event["contentBlockDelta"]["delta"]["text"]
                    written += piece
                    yield piece
        except (EventStreamError, HTTPError) as error:
            raise SummaryInterrupted(written) from error
        finally:
            answer["stream"].close()


def _asking(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"text": text}]}]
