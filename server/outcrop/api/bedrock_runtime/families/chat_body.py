"""Bodies in the form of OpenAI's chat completions, which several families have."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import Any

from outcrop.api.answer import AnswerEvents
from outcrop.api.bedrock_runtime.families.family import Invocation, refuse
from outcrop.api.bedrock_runtime.prompt_source import Target
from outcrop.api.field_error import FieldError, decode, unsupported
from outcrop.api.growing_answer import GrowingAnswer
from outcrop.api.guardrails.guard import Guard
from outcrop.api.openai.chat_completion import ChatCompletion
from outcrop.api.openai.chat_request import DECODER
from outcrop.api.openai.choice import GrowingChoice
from outcrop.api.openai.logprobs import LogprobsForm
from outcrop.catalog.model import TextDelta


class GrowingCompletion(GrowingAnswer):
    """A completion of one choice."""

    def __init__(self, events: AnswerEvents, model: str, logprobs: LogprobsForm | None = None) -> None:
        self._completion = ChatCompletion(f"chatcmpl-{secrets.token_hex(12)}", model)
        self._choice = GrowingChoice(events, logprobs=logprobs)

    def watch(self, guard: Guard) -> None:
        self._choice.watch(guard)

    def push(self, delta: TextDelta) -> Iterable[dict[str, Any]]:
        return [self._completion.chunk([choice]) for choice in self._choice.push(delta)]

    def whole(self) -> dict[str, Any]:
        return self._completion.whole([self._choice])


def chat_invocation(
    body: bytes,
    target: Target,
    priority: int,
    answer: Callable[[AnswerEvents, str, LogprobsForm | None], GrowingCompletion] = GrowingCompletion,
    *,
    default_temperature: float = 1.0,
    default_top_p: float = 1.0,
    default_max_tokens: int | None = None,
) -> Invocation:
    """What such a body asks for. The path says which model and whether to stream: in the body the first is
    passed over, as gpt-oss's bodies repeat it, and the second must not be there. Raises FieldError."""
    request = decode(body, DECODER)
    if request.stream is not None:
        raise FieldError("stream", "The path says it.", "unknown")
    if request.n not in (None, 1):
        raise unsupported("n", "call as often instead.")
    chat = request.chat(target.model, refuse)
    (call,) = request.calls(
        chat,
        default_temperature=default_temperature,
        default_top_p=default_top_p,
        default_max_tokens=default_max_tokens,
        priority=priority,
    )
    logprobs = request.logprobs_form(target.model)
    growing = answer(chat.events(call_prefix="call_"), target.identifier, logprobs)
    return Invocation(call, growing, chat.prepare_unbounded)
