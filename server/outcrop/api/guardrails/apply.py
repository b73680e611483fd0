"""ApplyGuardrail: a guardrail on texts that no model has to do with."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors
from outcrop.api.bedrock.parameters import read_parameters
from outcrop.api.bedrock_runtime.content import GuardrailConverseImageBlock, GuardrailConverseTextBlock
from outcrop.api.bedrock_runtime.models import GUARDRAIL_IDENTIFIER, GUARDRAIL_VERSION
from outcrop.api.body import read_body
from outcrop.api.caller import Caller
from outcrop.api.connection import unless_disconnected
from outcrop.api.decode import decode
from outcrop.api.guardrails.assessment import Assessment
from outcrop.api.guardrails.guard import assess
from outcrop.api.guardrails.store import GuardrailStore
from outcrop.api.inference import Inference
from outcrop.api.path_label import LABEL
from outcrop.api.responses import json_response
from outcrop.api.shapes import REQUIRED, Must, Shape, Union, check
from outcrop.api.smithy import Constraints
from outcrop.guardrails.filter import Action

INPUT = "INPUT"


class GuardrailContentBlock(Union):
    text: GuardrailConverseTextBlock | None = None
    image: GuardrailConverseImageBlock | None = None


class ApplyGuardrailRequest(Shape):
    source: Annotated[str | None, Must(required=True, one_of=(INPUT, "OUTPUT"))] = None
    content: Annotated[list[GuardrailContentBlock] | None, REQUIRED] = None
    output_scope: Annotated[str | None, Must(one_of=("INTERVENTIONS", "FULL"))] = None


class _Applied(Shape):
    guardrail_identifier: Annotated[str | None, GUARDRAIL_IDENTIFIER] = None
    guardrail_version: Annotated[str | None, GUARDRAIL_VERSION] = None


_REQUEST = msgspec.json.Decoder(ApplyGuardrailRequest)


class ApplyGuardrail:
    """The operation. Qualifiers are for contextual grounding; the other policies look at every block."""

    def __init__(self, guardrails: GuardrailStore, inference: Inference) -> None:
        self._guardrails = guardrails
        self._inference = inference

    def routes(self) -> list[Route]:
        path = f"/guardrail/{{guardrailIdentifier:{LABEL}}}/version/{{guardrailVersion}}/apply"
        return [Route(path, self._apply, methods=["POST"], name="ApplyGuardrail")]

    async def _apply(self, request: Request) -> Response:
        named = read_parameters(request, _Applied)
        identifier, version = str(named.guardrail_identifier), str(named.guardrail_version)
        limits = self._inference.limits
        body = await read_body(request, limits, errors.entity_too_large(limits.max_body_bytes))
        asked = decode(body, _REQUEST)
        constraints = Constraints()
        check(asked, constraints)
        constraints.raise_if_violated()
        texts = [_text(block) for block in asked.content or ()]
        settings = await self._guardrails.find(identifier, version)
        if settings is None:
            raise errors.unknown_guardrail(identifier, version)
        filters = settings.input if asked.source == INPUT else settings.output
        work = self._inference.run(
            lambda: assess(settings, filters, texts, sum(map(len, texts))), Caller.of(request)
        )
        assessment, passed = await unless_disconnected(request.receive, work)
        message = settings.blocked_input if asked.source == INPUT else settings.blocked_output
        return json_response(
            {
                "usage": assessment.usage,
                "action": "NONE" if assessment.action is Action.NONE else "GUARDRAIL_INTERVENED",
                "actionReason": assessment.reason,
                "outputs": _outputs(assessment, passed, message),
                "assessments": [assessment.document(full=asked.output_scope == "FULL")],
                "guardrailCoverage": assessment.coverage,
            }
        )


def _text(block: GuardrailContentBlock) -> str:
    """Raises ValidationException for an image."""
    if block.text is None:
        raise errors.unsupported_content("image")
    return block.text.text or ""


def _outputs(assessment: Assessment, passed: list[str], message: str) -> list[dict[str, Any]]:
    """Nothing where nothing was done; a text for each of the request's where any was masked."""
    match assessment.action:
        case Action.BLOCK:
            return [{"text": message}]
        case Action.ANONYMIZE:
            return [{"text": text} for text in passed]
        case Action.NONE:
            return []
