"""One record of a batch job: a line of input, and the line that answers it."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from outcrop.api import errors, failures
from outcrop.api.auth.policy import ALLOW_ALL
from outcrop.api.auth.principal import Principal
from outcrop.api.auth.quota import Quota
from outcrop.api.bedrock_runtime import converse
from outcrop.api.bedrock_runtime.converse import Conversation
from outcrop.api.bedrock_runtime.families import family_of
from outcrop.api.bedrock_runtime.prompt_source import Target
from outcrop.api.bedrock_runtime.timing import Stopwatch
from outcrop.api.caller import Caller
from outcrop.api.error_kind import Kind
from outcrop.api.errors import ApiError
from outcrop.api.growing_answer import complete
from outcrop.api.inference import Inference
from outcrop.engine.client import BACKGROUND
from outcrop.ledger.job_record import ERROR, SUCCESS

_TRANSIENT = frozenset((Kind.THROTTLING, Kind.MODEL_NOT_READY, Kind.SERVICE_UNAVAILABLE))
"""What passes: the engine restarts, or the server is full. The record is tried again."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0

_DOCUMENT: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class Answered:
    """state: SUCCESS or ERROR. text: the line of output. tokens: of the prompt and of the answer."""

    state: str
    text: str
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class RecordAnswerer:
    """Answers records of one job. is_conversation: they hold Converse requests, not native bodies."""

    inference: Inference
    model_id: str
    is_conversation: bool
    principal: Principal

    async def answer(self, line: str, request_id: str) -> Answered:
        """The outcome of a record, however long the model takes to be there for it."""
        try:
            record = _DOCUMENT.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _failed({}, errors.validation("The record is not valid JSON."))
        if not isinstance(record, dict) or not isinstance(record.get("modelInput"), dict):
            return _failed({}, errors.validation("The record has no modelInput that is a JSON object."))
        given = record.get("recordId")
        record_id = given if isinstance(given, str) else uuid.uuid4().hex[:11].upper()
        known = {"modelInput": record["modelInput"], "recordId": record_id}
        pause, attempt = _FIRST_PAUSE, 0
        while True:
            try:
                output, read, written = await self._invoke(record["modelInput"], f"{request_id}-{attempt}")
                text = {
                    "modelInput": known["modelInput"],
                    "modelOutput": output,
                    "recordId": known["recordId"],
                }
                return Answered(SUCCESS, _written(text), read, written)
            except Exception as exc:
                error = failures.from_exception(exc)
                if error.kind not in _TRANSIENT:
                    failures.log_unexpected(exc, request_id)
                    return _failed(known, error)
            attempt += 1
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _invoke(self, model_input: dict[str, Any], request_id: str) -> tuple[object, int, int]:
        """The output and its counts of tokens. Raises what calls of the data plane raise."""
        watch = Stopwatch()
        target = Target(
            self.inference.catalog.resolve(self.model_id), self.model_id, self.inference.limits.strict
        )
        caller = Caller(request_id, self.principal)
        body = msgspec.json.encode(model_input)
        if self.is_conversation:
            conversation = Conversation.of(converse.parse(body), target, streaming=False)
            call = replace(conversation.call, priority=BACKGROUND)
            answer: Any = await conversation.answer(self.inference.answer(call, caller, watch.started), watch)
            usage = answer["usage"]
            return answer, usage["totalTokens"] - usage["outputTokens"], usage["outputTokens"]
        invocation = family_of(self.model_id).parse(body, target)
        call = replace(invocation.call, priority=BACKGROUND)
        last = await complete(invocation.answer, self.inference.answer(call, caller, watch.started))
        return invocation.answer.whole(), last.prompt, last.generated


def principal_for(key_id: str, tenant: str, arn: str) -> Principal:
    """On whose behalf a job's records are answered: its creator's, who was allowed to when it was created.
    Quotas are for online calls."""
    return Principal(key_id, tenant, arn, ALLOW_ALL, Quota(None, None, lambda: 0.0))


def _failed(known: dict[str, Any], error: ApiError) -> Answered:
    members = {"errorCode": error.kind.status, "errorMessage": error.message}
    return Answered(ERROR, _written({**known, "error": members}))


def _written(document: dict[str, Any]) -> str:
    """Not `json`, which cannot write the arguments of calls: they are kept as the model wrote them."""
    return msgspec.json.encode(document).decode()
