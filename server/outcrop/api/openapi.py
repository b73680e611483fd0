"""An OpenAPI document of what this server serves, for tools that read one.

It is made of what answers requests, so it cannot say anything else: the routes, the shapes that bodies are
decoded into with the constraints that are checked then, and the table of errors. The rules of a
conversation (who speaks when, what belongs to what) are no matter of shapes and are not in it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import outcrop
from outcrop.api import eventstream
from outcrop.api.anthropic import routes as anthropic
from outcrop.api.anthropic.messages_request import MessagesRequest
from outcrop.api.async_invoke.shapes import StartAsyncInvokeRequest
from outcrop.api.batch.shapes import CreateModelInvocationJobRequest
from outcrop.api.bedrock.inference_profiles import CreateInferenceProfileRequest
from outcrop.api.bedrock.tagging import (
    ListTagsForResourceRequest,
    TagResourceRequest,
    UntagResourceRequest,
)
from outcrop.api.bedrock_runtime.models import ConverseRequest, CountTokensRequest
from outcrop.api.error_kind import Kind
from outcrop.api.guardrails.apply import ApplyGuardrailRequest
from outcrop.api.guardrails.shapes import (
    CreateGuardrailRequest,
    CreateGuardrailVersionRequest,
    UpdateGuardrailRequest,
)
from outcrop.api.imports.shapes import CreateModelImportJobRequest
from outcrop.api.invocation_log.routes import PutModelInvocationLoggingConfigurationRequest
from outcrop.api.openai import routes as openai
from outcrop.api.openai.chat_request import ChatRequest
from outcrop.api.openai.completion_request import CompletionRequest
from outcrop.api.openai.responses_request import ResponsesRequest
from outcrop.api.openapi_schemas import Schemas
from outcrop.api.prompt_router.routes import CreatePromptRouterRequest
from outcrop.api.provisioned.shapes import (
    CreateProvisionedModelThroughputRequest,
    UpdateProvisionedModelThroughputRequest,
)
from outcrop.api.responses import json_response

PATH = "/openapi.json"

_JSON = "application/json"
_TEXT = "text/plain"
_SERVER_SENT_EVENTS = openai.SERVER_SENT_EVENTS.content_type
_OPENAI = "openai-"
_ANTHROPIC = "anthropic-"
"""Before the names of responses whose errors have another form than the service's."""
_ERROR = {
    "type": "object",
    "properties": {
        "message": {"type": "string"},
        "originalStatusCode": {"type": "integer"},
        "resourceName": {"type": "string"},
    },
    "required": ["message"],
}
_OPENAI_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
_ANTHROPIC_ERROR = {
    "type": "object",
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
            "required": ["type", "message"],
        },
    },
    "required": ["type", "error"],
}
_PATH_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")


@dataclass(frozen=True, slots=True)
class Described:
    """What a route's path and method do not tell. body: the shape its JSON body is decoded into, if it has
    one; `dict` where that depends on the model. answers: the content types of success. statuses: of success,
    or of an operator's answer."""

    summary: str
    body: Any = None
    answers: tuple[str, ...] = (_JSON,)
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    statuses: tuple[int, ...] = (200,)


_INVOKE_HEADERS = tuple(
    f"X-Amzn-Bedrock-{name}"
    for name in (
        "Trace",
        "GuardrailIdentifier",
        "GuardrailVersion",
        "PerformanceConfig-Latency",
        "Service-Tier",
        "Request-Metadata",
    )
)

_PAGE = ("maxResults", "nextToken")
_SORTED_PAGE = (*_PAGE, "sortBy", "sortOrder")

_DESCRIBED = {
    "Converse": Described("Answer a conversation", ConverseRequest),
    "ConverseStream": Described(
        "Answer a conversation, event by event", ConverseRequest, (eventstream.CONTENT_TYPE,)
    ),
    "InvokeModel": Described("Continue a prompt in the model's own format", dict, headers=_INVOKE_HEADERS),
    "InvokeModelWithResponseStream": Described(
        "Continue a prompt in the model's own format, chunk by chunk",
        dict,
        (eventstream.CONTENT_TYPE,),
        headers=_INVOKE_HEADERS,
    ),
    "CountTokens": Described("Count the tokens of a prompt", CountTokensRequest),
    "InvokeModelWithBidirectionalStream": Described("Not offered", dict),
    "ApplyGuardrail": Described("Apply a guardrail to texts", ApplyGuardrailRequest),
    "InvokeGuardrailChecks": Described("Not offered", dict),
    "StartAsyncInvoke": Described("Answer a native body into S3", StartAsyncInvokeRequest),
    "ListAsyncInvokes": Described(
        "List asynchronous invocations",
        query=(
            "submitTimeAfter",
            "submitTimeBefore",
            "statusEquals",
            "maxResults",
            "nextToken",
            "sortBy",
            "sortOrder",
        ),
    ),
    "GetAsyncInvoke": Described("Describe an asynchronous invocation"),
    "ListFoundationModels": Described(
        "List the models of this server",
        query=("byProvider", "byCustomizationType", "byOutputModality", "byInferenceType"),
    ),
    "GetFoundationModel": Described("Describe one model"),
    "GetFoundationModelAvailability": Described("Say that one model may be used"),
    "CreateInferenceProfile": Described(
        "Make a profile of a model", CreateInferenceProfileRequest, statuses=(201,)
    ),
    "ListInferenceProfiles": Described("List inference profiles", query=(*_PAGE, "type")),
    "GetInferenceProfile": Described("Describe an inference profile"),
    "DeleteInferenceProfile": Described("Delete an application's inference profile"),
    "CreateModelInvocationJob": Described("Start a batch job", CreateModelInvocationJobRequest),
    "GetModelInvocationJob": Described("Describe a batch job, with how far it is"),
    "ListModelInvocationJobs": Described(
        "List batch jobs",
        query=(*_SORTED_PAGE, "submitTimeAfter", "submitTimeBefore", "statusEquals", "nameContains"),
    ),
    "StopModelInvocationJob": Described("Stop a batch job"),
    "CreateModelImportJob": Described("Import a model", CreateModelImportJobRequest, statuses=(201,)),
    "GetModelImportJob": Described("Describe an import"),
    "ListModelImportJobs": Described(
        "List imports",
        query=(*_SORTED_PAGE, "creationTimeAfter", "creationTimeBefore", "statusEquals", "nameContains"),
    ),
    "ListImportedModels": Described(
        "List imported models",
        query=(*_SORTED_PAGE, "creationTimeAfter", "creationTimeBefore", "nameContains"),
    ),
    "GetImportedModel": Described("Describe an imported model"),
    "DeleteImportedModel": Described("Delete an imported model"),
    "CreatePromptRouter": Described("Make a router between two models", CreatePromptRouterRequest),
    "GetPromptRouter": Described("Describe a prompt router"),
    "ListPromptRouters": Described("List prompt routers", query=(*_PAGE, "type")),
    "DeletePromptRouter": Described("Delete a prompt router"),
    "CreateProvisionedModelThroughput": Described(
        "Reserve places for a model", CreateProvisionedModelThroughputRequest, statuses=(201,)
    ),
    "GetProvisionedModelThroughput": Described("Describe a Provisioned Throughput"),
    "ListProvisionedModelThroughputs": Described(
        "List Provisioned Throughputs",
        query=(
            *_SORTED_PAGE,
            "creationTimeAfter",
            "creationTimeBefore",
            "statusEquals",
            "modelArnEquals",
            "nameContains",
        ),
    ),
    "UpdateProvisionedModelThroughput": Described(
        "Give a Provisioned Throughput another name", UpdateProvisionedModelThroughputRequest
    ),
    "DeleteProvisionedModelThroughput": Described("Give a model's places back"),
    "PutModelInvocationLoggingConfiguration": Described(
        "Log what is asked and answered", PutModelInvocationLoggingConfigurationRequest
    ),
    "GetModelInvocationLoggingConfiguration": Described("Say what is logged"),
    "DeleteModelInvocationLoggingConfiguration": Described("Log nothing any more"),
    "CreateGuardrail": Described("Make a guardrail", CreateGuardrailRequest, statuses=(202,)),
    "ListGuardrails": Described(
        "List guardrails, or the versions of one", query=(*_PAGE, "guardrailIdentifier")
    ),
    "GetGuardrail": Described("Describe a guardrail", query=("guardrailVersion",)),
    "UpdateGuardrail": Described("Change a guardrail's draft", UpdateGuardrailRequest, statuses=(202,)),
    "DeleteGuardrail": Described(
        "Delete a guardrail, or one version of it", query=("guardrailVersion",), statuses=(202,)
    ),
    "CreateGuardrailVersion": Described(
        "Keep a guardrail's draft as a version", CreateGuardrailVersionRequest, statuses=(202,)
    ),
    "TagResource": Described("Tag a resource", TagResourceRequest),
    "UntagResource": Described("Take tags from a resource", UntagResourceRequest),
    "ListTagsForResource": Described("List the tags of a resource", ListTagsForResourceRequest),
    "createCompletion": Described(
        "Continue one prompt or several", CompletionRequest, (_JSON, _SERVER_SENT_EVENTS)
    ),
    "createChatCompletion": Described(
        "Answer a conversation in OpenAI's form", ChatRequest, (_JSON, _SERVER_SENT_EVENTS)
    ),
    "createResponse": Described(
        "Answer a conversation in the form of OpenAI's Responses",
        ResponsesRequest,
        (_JSON, _SERVER_SENT_EVENTS),
    ),
    "listModels": Described("List the models of this server in OpenAI's form"),
    "retrieveModel": Described("Describe one model in OpenAI's form"),
    "createMessage": Described(
        "Answer a conversation in Anthropic's form", MessagesRequest, (_JSON, _SERVER_SENT_EVENTS)
    ),
    "countMessageTokens": Described("Count the tokens of a prompt in Anthropic's form", MessagesRequest),
    "live": Described("Whether the process answers at all"),
    "ready": Described("Whether every model answers", statuses=(200, 503)),
    "metrics": Described("Metrics in Prometheus' text format", answers=(_TEXT,)),
    "openapi": Described("This document"),
    "inspect": Described("The last requests of the caller's tenant, with their answers"),
}


class OpenApi:
    """`/openapi.json`, which describes the given routes and itself."""

    def __init__(self, routes: Sequence[Route]) -> None:
        """Raises LookupError for a route that this module does not describe."""
        own = Route(PATH, self._document_response, methods=["GET"], name="openapi")
        self._routes = [*routes, own]
        missing = [route.name for route in self._routes if route.name not in _DESCRIBED]
        if missing:
            raise LookupError(f"routes without a description: {', '.join(missing)}")

    def routes(self) -> list[Route]:
        return self._routes[-1:]

    @functools.cached_property
    def document(self) -> Mapping[str, Any]:
        """The document as JSON values."""
        schemas = Schemas()
        paths: dict[str, dict[str, Any]] = {}
        for route in self._routes:
            for method in sorted((route.methods or set()) - {"HEAD"}):
                path = paths.setdefault(_PATH_PARAMETER.sub(r"{\1}", route.path), {})
                path[method.lower()] = _operation(route, _DESCRIBED[route.name], schemas)
        return {
            "openapi": "3.1.0",
            "info": {"title": "Outcrop", "version": outcrop.__version__},
            "paths": paths,
            "components": {
                "schemas": schemas.components,
                "responses": _error_responses("", _ERROR)
                | _error_responses(_OPENAI, _OPENAI_ERROR)
                | _error_responses(_ANTHROPIC, _ANTHROPIC_ERROR),
            },
        }

    async def _document_response(self, request: Request) -> Response:
        return json_response(self.document)


def _operation(route: Route, described: Described, schemas: Schemas) -> dict[str, Any]:
    names = [("path", name) for name in _PATH_PARAMETER.findall(route.path)]
    names += [("query", name) for name in described.query] + [("header", name) for name in described.headers]
    operation: dict[str, Any] = {"operationId": route.name, "summary": described.summary}
    if names:
        operation["parameters"] = [_parameter(location, name) for location, name in names]
    if described.body is not None:
        schema = {"type": "object"} if described.body is dict else schemas.of(described.body)
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": schema}}}
    prefixes = {openai.PREFIX: _OPENAI, anthropic.PREFIX: _ANTHROPIC}
    prefix = next((name for path, name in prefixes.items() if route.path.startswith(path)), "")
    successes = {str(status): _success(described) for status in described.statuses}
    operation["responses"] = {
        str(status): {"$ref": f"#/components/responses/{prefix}{status}"} for status in _codes_by_status()
    } | successes
    return operation


def _parameter(location: str, name: str) -> dict[str, Any]:
    return {"name": name, "in": location, "required": location == "path", "schema": {"type": "string"}}


def _success(described: Described) -> dict[str, Any]:
    schemas = {
        content_type: {"schema": {"type": "object" if content_type == _JSON else "string"}}
        for content_type in described.answers
    }
    return {"description": "The answer", "content": schemas}


def _error_responses(prefix: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The table of errors, as responses by status. schema: of their bodies."""
    return {
        f"{prefix}{status}": {
            "description": " or ".join(codes),
            "headers": {
                "x-amzn-ErrorType": {"required": True, "schema": {"type": "string", "enum": codes}},
            },
            "content": {_JSON: {"schema": schema}},
        }
        for status, codes in _codes_by_status().items()
    }


def _codes_by_status() -> dict[int, list[str]]:
    codes: dict[int, list[str]] = {}
    for kind in Kind:
        codes.setdefault(kind.status, []).append(kind.code)
    return codes
