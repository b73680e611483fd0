"""Routes of the `bedrock-runtime` service."""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors
from outcrop.api.auth.access import guardrail_arn, model_arns
from outcrop.api.auth.principal import principal_of
from outcrop.api.bedrock_runtime import converse, count_tokens, invoke_headers, llama_on_bedrock, native
from outcrop.api.bedrock_runtime.converse import Conversation
from outcrop.api.bedrock_runtime.families import Invocation, family_of
from outcrop.api.bedrock_runtime.guarded_body import GuardedBody
from outcrop.api.bedrock_runtime.invoke_headers import InvokeHeaders
from outcrop.api.bedrock_runtime.not_offered import NotOffered
from outcrop.api.bedrock_runtime.prompt_source import Target
from outcrop.api.bedrock_runtime.timing import Stopwatch
from outcrop.api.body import read_body
from outcrop.api.caller import Caller
from outcrop.api.connection import StreamResponse, unless_disconnected
from outcrop.api.growing_answer import complete
from outcrop.api.guardrails.apply import ApplyGuardrail
from outcrop.api.guardrails.guard import Guard, GuardOptions
from outcrop.api.guardrails.store import GuardrailStore
from outcrop.api.inference import Inference, Prompt
from outcrop.api.path_label import LABEL
from outcrop.api.prompt_router import demand
from outcrop.api.prompts import Variant, fill_in
from outcrop.api.responses import json_response
from outcrop.catalog import identifiers
from outcrop.catalog.prompt_router import Demand, PromptRouter


class BedrockRuntime:
    """The operations of the service, on one `Inference`."""

    def __init__(self, inference: Inference, guardrails: GuardrailStore) -> None:
        self._inference = inference
        self._guardrails = guardrails

    def routes(self) -> list[Route]:
        """A model id may hold slashes and colons, bare or percent-encoded: hence `LABEL`."""
        operations = {
            "Converse": ("converse", self._converse),
            "ConverseStream": ("converse-stream", self._converse_stream),
            "InvokeModel": ("invoke", self._invoke),
            "InvokeModelWithResponseStream": ("invoke-with-response-stream", self._invoke_stream),
            "CountTokens": ("count-tokens", self._count_tokens),
        }
        offered = [
            Route(f"/model/{{model_id:{LABEL}}}/{verb}", endpoint, methods=["POST"], name=name)
            for name, (verb, endpoint) in operations.items()
        ]
        applying = ApplyGuardrail(self._guardrails, self._inference).routes()
        return [*offered, *applying, *NotOffered(self._inference.catalog).routes()]

    async def _converse(self, request: Request) -> Response:
        watch = Stopwatch()
        conversation = await self._conversation(request, streaming=False)
        deltas = self._inference.answer(conversation.call, Caller.of(request), watch.started)
        answer = await unless_disconnected(request.receive, conversation.answer(deltas, watch))
        return json_response(answer)

    async def _converse_stream(self, request: Request) -> Response:
        watch = Stopwatch()
        conversation = await self._conversation(request, streaming=True)
        deltas = self._inference.answer(conversation.call, Caller.of(request), watch.started)
        return StreamResponse(conversation.frames(deltas, watch))

    async def _conversation(self, request: Request, *, streaming: bool) -> Conversation:
        identifier = request.path_params["model_id"]
        variant = self._stored_prompt(request, identifier, streaming=streaming)
        named = variant.model_id or "" if variant else identifier
        router = self._inference.catalog.router(named)
        target = self._target(request, named) if router is None else None
        parsed = converse.parse(await self._read(request))
        if variant is not None:
            parsed = fill_in(variant, parsed)
        if router is not None:
            target = self._routed(request, router, demand.of_conversation(parsed), streaming=streaming)
        assert target is not None
        config = parsed.guardrail_config
        identifier, version = (config.guardrail_identifier, config.guardrail_version) if config else ("", "")
        guard = await self._guard(request, identifier or "", version or "", converse.guard_options(parsed))
        return Conversation.of(parsed, target, streaming=streaming, guard=guard)

    def _stored_prompt(self, request: Request, identifier: str, *, streaming: bool) -> Variant | None:
        """The prompt that a prompt ARN names. The caller must be allowed to use its model, too. Raises
        ResourceNotFoundException or AccessDeniedException."""
        if (named := identifiers.prompt_of(identifier)) is None:
            return None
        variant = self._inference.prompts.find(*named)
        self._authorize(request, variant.model_id or "", streaming=streaming)
        return variant

    def _authorize(self, request: Request, identifier: str, *, streaming: bool) -> None:
        """Whoever may use what leads to a model must be allowed to use the model, too. Raises
        AccessDeniedException."""
        action = "bedrock:InvokeModelWithResponseStream" if streaming else "bedrock:InvokeModel"
        principal_of(request.scope).authorize(action, *model_arns(identifier, self._inference.catalog))

    def _routed(self, request: Request, router: PromptRouter, wanted: Demand, *, streaming: bool) -> Target:
        """The model that a router chooses. Raises as `_target`, and AccessDeniedException."""
        chosen = router.choose(wanted, self._inference.catalog.resolve)
        self._authorize(request, chosen, streaming=streaming)
        return replace(self._target(request, chosen), routed=True)

    async def _invoke(self, request: Request) -> Response:
        watch = Stopwatch()
        headers = InvokeHeaders.of(request.headers)
        invocation = await self._invocation(request, headers, streaming=False)
        deltas = self._inference.answer(invocation.call, Caller.of(request), watch.started)
        last = await unless_disconnected(request.receive, complete(invocation.answer, deltas))
        counts = invoke_headers.counts(last, watch)
        guard = invocation.call.guard
        told = {} if guard is None else guard.native_members()
        return json_response(invocation.answer.whole() | told, headers=counts | headers.echoed)

    async def _invoke_stream(self, request: Request) -> Response:
        watch = Stopwatch()
        headers = InvokeHeaders.of(request.headers)
        invocation = await self._invocation(request, headers, streaming=True)
        deltas = self._inference.answer(invocation.call, Caller.of(request), watch.started)
        content_type = {"x-amzn-bedrock-content-type": "application/json"}
        return StreamResponse(
            native.frames(invocation.answer, deltas, watch, invocation.call.guard),
            headers=content_type | headers.echoed,
        )

    async def _invocation(self, request: Request, headers: InvokeHeaders, *, streaming: bool) -> Invocation:
        identifier = request.path_params["model_id"]
        router = self._inference.catalog.router(identifier)
        target = self._target(request, identifier) if router is None else None
        body = await self._read(request, native=True)
        if router is not None:
            target = self._routed(request, router, demand.of_body(body), streaming=streaming)
        assert target is not None
        family = family_of(target.identifier)
        if streaming and not family.streams:
            raise errors.unsupported_streaming()
        if not headers.names_guardrail:
            return family.parse(body, target, headers.tier)
        guarded = GuardedBody(body)
        options = GuardOptions(
            trace=headers.trace != "DISABLED",
            full=headers.trace == "ENABLED_FULL",
            asynchronous=streaming and guarded.config.asynchronous,
        )
        invocation = family.parse(guarded.body, target, headers.tier)
        if invocation.call.logprobs is not None:
            raise errors.malformed_input(
                ["#/logprobs: log probabilities would tell the very tokens that a guardrail keeps back"]
            )
        guard = await self._guard(request, headers.guardrail_identifier, headers.guardrail_version, options)
        assert guard is not None

        def prepare() -> Prompt:
            return family.parse(guarded.checked(guard), target, headers.tier).call.prepare()

        invocation.answer.watch(guard)
        return replace(invocation, call=replace(invocation.call, guard=guard, prepare=prepare))

    async def _guard(
        self, request: Request, identifier: str, version: str, options: GuardOptions
    ) -> Guard | None:
        """The guardrail that a call names, if it does; its caller must be allowed to use it. Raises
        ValidationException or AccessDeniedException."""
        if not identifier and not version:
            return None
        if not identifier or not version:
            raise errors.validation(
                "A guardrail is named by guardrailIdentifier and guardrailVersion together. "
                "Give both, or neither, and try again."
            )
        arn = guardrail_arn(identifier, self._inference.catalog)
        principal_of(request.scope).authorize("bedrock:ApplyGuardrail", arn)
        settings = await self._guardrails.find(identifier, version)
        if settings is None:
            raise errors.validation(
                "The guardrail identifier or version provided in the request does not exist."
            )
        return Guard(settings, options)

    async def _count_tokens(self, request: Request) -> Response:
        identifier = request.path_params["model_id"]
        count_tokens.check_identifier(identifier)
        target = self._target(request, identifier)
        if target.strict:
            raise errors.no_token_counting()
        prepare = count_tokens.parse(await self._read(request), target)
        count = await unless_disconnected(request.receive, self._inference.count(prepare, Caller.of(request)))
        return json_response({"inputTokens": count})

    def _target(self, request: Request, identifier: str) -> Target:
        """The model that the client names. Raises UnknownModel, or ApiError for what it is refused without
        looking at its body."""
        catalog, limits = self._inference.catalog, self._inference.limits
        strict = llama_on_bedrock.is_strict(
            request.headers.get(llama_on_bedrock.HEADER), default=limits.strict
        )
        model = catalog.resolve(identifier)
        if strict:
            llama_on_bedrock.refuse_model(identifier, catalog.region)
        self._inference.admission.check(model.reservation)
        return Target(model, identifier, strict)

    async def _read(self, request: Request, *, native: bool = False) -> bytes:
        """The body. The service's operations do not agree on how one that is too large is refused."""
        limits = self._inference.limits
        too_large = errors.body_too_long if native else errors.entity_too_large
        return await read_body(request, limits, too_large(limits.max_body_bytes))
