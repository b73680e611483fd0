"""From a validated call to the deltas of its answer: the same for every protocol of the API."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from outcrop.api import errors, failures
from outcrop.api.admission import Admission, ApiLimits
from outcrop.api.bedrock_runtime.service_tier import PROVISIONED
from outcrop.api.caller import Caller
from outcrop.api.guardrails.guard import Guard, InputBlocked
from outcrop.api.observer import Observer
from outcrop.api.prompts import PromptLibrary
from outcrop.api.sampling import MAX_SEED, NO_EXTRAS, SamplingExtras
from outcrop.catalog.catalog import Catalog
from outcrop.catalog.model import EndReason, ServedModel, TextDelta
from outcrop.engine.client import BACKGROUND, ModelFailure, SamplingParams, lacking
from outcrop.telemetry.tracing import TracedCall
from outcrop.text.chat_template import ChatTemplateError

T = TypeVar("T")

FINISH_REASONS = {
    EndReason.END_TURN: "stop",
    EndReason.STOP_SEQUENCE: "stop",
    EndReason.MAX_TOKENS: "length",
    EndReason.CONTEXT: "length",
    EndReason.GUARDRAIL: "stop",
}
"""Why an answer ended, in the words of the metrics, of Llama's native body and of OpenAI's API."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is given: at least one token id, and the grammar that holds the answer, "" for none."""

    ids: list[int]
    grammar: str = ""


@dataclass(frozen=True, slots=True)
class GenerationCall:
    """What a client asked of a model, whatever protocol it spoke.

    prepare: makes the prompt; slow for long ones, so called in a thread. It raises ApiError or
    ChatTemplateError. prompt_bytes: a lower bound of the prompt's length in UTF-8. max_tokens: refused where
    it exceeds the context; None for `default_max_tokens`, which is not, and where that is None too for what
    the context leaves. max_context: tokens, where the model is to have less context than it has. visible:
    special tokens that appear in the answer's text. priority: as in `GenerationRequest`.
    ignore_eos: tokens that end a turn are like any other, so that a limit or a stop string ends the answer.
    operation: what traces call it, by OpenTelemetry's conventions.
    choice: which of several answers to one request this is; their seeds are a row.
    guard: the guardrail that the request names, through which whoever takes the deltas sends their text. Its
    look at the prompt is a part of `prepare`.
    logprobs: as in SamplingParams.
    """

    model: ServedModel
    prepare: Callable[[], Prompt]
    prompt_bytes: int
    temperature: float
    top_p: float
    max_tokens: int | None = None
    default_max_tokens: int | None = None
    extras: SamplingExtras = NO_EXTRAS
    stop: tuple[str, ...] = ()
    visible: tuple[str, ...] = ()
    priority: int = 0
    max_context: int | None = None
    ignore_eos: bool = False
    operation: str = "chat"
    choice: int = 0
    guard: Guard | None = None
    logprobs: int | None = None

    @property
    def context(self) -> int:
        """Tokens, prompt and answer together. Valid once the model's engine has started."""
        limit = self.model.max_model_len
        return limit if self.max_context is None else min(limit, self.max_context)


class Inference:
    """Answers calls with the models of a catalog, within the limits of the API process."""

    def __init__(
        self, catalog: Catalog, limits: ApiLimits, observer: Observer, prompts: Path | None = None
    ) -> None:
        """prompts: the folder of stored prompts, if there is one. Raises ValueError for a broken one."""
        self.catalog = catalog
        self.limits = limits
        self.prompts = PromptLibrary(prompts)
        self.admission = Admission(
            limits.max_inflight, lambda: catalog.most_replicas, lambda: catalog.reserved_units
        )
        self._observer = observer
        self._tokenizers = ThreadPoolExecutor(limits.tokenizer_threads, thread_name_prefix="tokenize")
        for model in catalog.models:
            self._tokenizers.submit(model.grammars.prepare)

    def background(self) -> Inference:
        """The same for work that nobody waits for: it takes no place from calls, and one thread for its
        prompts."""
        limits = replace(self.limits, tokenizer_threads=1)
        return Inference(self.catalog, limits, self._observer, prompts=None)

    def close(self) -> None:
        self._tokenizers.shutdown(wait=False, cancel_futures=True)

    async def answer(
        self, call: GenerationCall, caller: Caller, arrived: float
    ) -> AsyncGenerator[TextDelta, None]:
        """The deltas of one answer, the last with its `end` set. Closing the generator ends the work.

        The caller's quota is charged, also for what an answer that is cut short has generated. `arrived` is
        `perf_counter()` when the request came in. Raises ApiError, before the first delta for everything
        that the request itself is to blame for; EngineUnavailable at any time. Where a guardrail blocks the
        prompt or the answer, there is nothing more to it but its end.
        """
        model = call.model
        principal = caller.principal
        reservation = model.reservation if call.priority > BACKGROUND else None
        with self.admission.slot(reservation) as is_reserved:
            self._require_ready(model)
            if call.max_tokens is not None and call.max_tokens > model.max_model_len:
                raise errors.max_tokens_exceeded(model.max_model_len)
            if is_reserved:
                call = replace(call, priority=PROVISIONED)
            await principal.admit()
            try:
                prompt = await self._bounded_prompt(call)
            except InputBlocked:
                yield TextDelta("", 0, 0, 0, EndReason.GUARDRAIL)
                return
            sampling = self._sampling(call, prompt)
            await principal.admit_tokens(len(prompt.ids))
            traced = _traced(call, caller)
            watched = self._observer.generation(traced, caller, len(prompt.ids), arrived)
            reason = "abort"
            try:
                async with aclosing(self._generate(call, prompt, sampling, caller)) as deltas:
                    async for delta in deltas:
                        watched.delta(delta)
                        if delta.end is not None:
                            reason = FINISH_REASONS[delta.end]
                            await watched.completed(reason)
                        yield delta
            except ModelFailure as exc:
                reason = "error"
                failures.log_unexpected(exc, caller.request_id)
                raise errors.model_error(self.catalog.arn_of(model)) from exc
            except Exception:
                reason = "error"
                raise
            finally:
                watched.ended(reason)
                principal.charge(watched.generated)

    async def count(self, prepare: Callable[[], Prompt], caller: Caller) -> int:
        """The tokens of a prompt, however long. Needs no engine. Raises ApiError."""
        with self.admission.slot():
            await caller.principal.admit()
            return len((await self._prepare(prepare)).ids)

    async def run(self, work: Callable[[], T], caller: Caller) -> T:
        """The result of slow work on texts, which has nothing to do with a model."""
        with self.admission.slot():
            await caller.principal.admit()
            return await asyncio.get_running_loop().run_in_executor(self._tokenizers, work)

    def _generate(
        self, call: GenerationCall, prompt: Prompt, sampling: SamplingParams, caller: Caller
    ) -> AsyncGenerator[TextDelta, None]:
        deltas = call.model.generate(
            caller.request_id,
            prompt.ids,
            sampling,
            call.stop,
            visible=call.visible,
            priority=call.priority,
            cache_salt=caller.principal.tenant,
            session=caller.session,
        )
        return deltas if call.guard is None else _until_blocked(deltas, call.guard)

    def _sampling(self, call: GenerationCall, prompt: Prompt) -> SamplingParams:
        """What the engine is told. Raises ApiError where it can do less than is asked."""
        sampling = _sampling(call, prompt, self.limits.seed)
        seeded = call.extras.seed is not None
        what = lacking(call.model.engine.abilities, sampling, priority=call.priority, seeded=seeded)
        if what is not None:
            raise errors.unsupported_by_engine(what)
        return sampling

    def _require_ready(self, model: ServedModel) -> None:
        if not model.engine.ready:
            model.engine.wake()
            failed = self.catalog.failure(model) is not None
            raise errors.service_unavailable() if failed else errors.model_not_ready()

    async def _bounded_prompt(self, call: GenerationCall) -> Prompt:
        """A prompt of fewer tokens than the context holds."""
        limit = call.context
        if call.model.exceeds_context(call.prompt_bytes):
            raise errors.prompt_too_long(limit)
        prompt = await self._prepare(call.prepare)
        if len(prompt.ids) >= limit:
            raise errors.prompt_too_long(limit)
        return prompt

    async def _prepare(self, prepare: Callable[[], Prompt]) -> Prompt:
        try:
            prompt = await asyncio.get_running_loop().run_in_executor(self._tokenizers, prepare)
        except ChatTemplateError as exc:
            raise errors.prompt_refused(str(exc)) from exc
        if not prompt.ids:
            raise errors.prompt_refused("The prompt has no tokens in this model's vocabulary.")
        return prompt


async def _until_blocked(
    deltas: AsyncGenerator[TextDelta, None], guard: Guard
) -> AsyncGenerator[TextDelta, None]:
    """The deltas up to that in which the guardrail found what it blocks: their text has gone through it when
    the next one is asked for."""
    async with aclosing(deltas):
        async for delta in deltas:
            yield delta
            if guard.blocked and delta.end is None:
                yield msgspec.structs.replace(delta, text="", tokens=(), end=EndReason.GUARDRAIL)
                return


def _traced(call: GenerationCall, caller: Caller) -> TracedCall:
    return TracedCall(
        operation=call.operation,
        model=call.model.id,
        request_id=caller.request_id,
        provider=caller.provider,
        max_tokens=call.max_tokens,
        temperature=call.temperature,
        top_p=call.top_p,
        stop=call.stop,
        headers=caller.trace,
    )


def _sampling(call: GenerationCall, prompt: Prompt, default_seed: int | None) -> SamplingParams:
    extras = call.extras
    seed = default_seed if extras.seed is None else extras.seed
    return SamplingParams(
        max_tokens=call.max_tokens or call.default_max_tokens or call.context - len(prompt.ids),
        temperature=call.temperature,
        top_p=call.top_p,
        top_k=extras.top_k,
        seed=random.randint(0, MAX_SEED) if seed is None else (seed + call.choice) & MAX_SEED,
        eos_ids=() if call.ignore_eos else call.model.tokenizer.eos_ids,
        min_p=extras.min_p,
        repetition_penalty=extras.repetition_penalty,
        presence_penalty=extras.presence_penalty,
        frequency_penalty=extras.frequency_penalty,
        logit_bias=dict(extras.logit_bias),
        grammar=prompt.grammar,
        logprobs=call.logprobs,
    )
