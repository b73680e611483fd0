"""From a validated call to the deltas of its answer: the same for every protocol of the API."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from outcrop.api import errors
from outcrop.api.admission import Admission, ApiLimits
from outcrop.catalog.catalog import Catalog
from outcrop.catalog.model import EndReason, ServedModel, TextDelta
from outcrop.engine.client import ModelFailure, SamplingParams
from outcrop.telemetry.metrics import Metrics
from outcrop.text.chat_template import ChatTemplateError

MAX_SEED = 2**31 - 1

_FINISHED_REASONS = {
    EndReason.END_TURN: "stop",
    EndReason.STOP_SEQUENCE: "stop",
    EndReason.MAX_TOKENS: "length",
    EndReason.CONTEXT: "length",
}


@dataclass(frozen=True, slots=True)
class GenerationCall:
    """What a client asked of a model, whatever protocol it spoke.

    encode: the prompt's token ids; slow for long prompts, so called in a thread. prompt_bytes: a lower
    bound of the prompt's length in UTF-8. max_tokens: refused where it exceeds the context; None
    for `default_max_tokens`, which is not, and where that is None too for what the context leaves. top_k: 0
    for the backend's cap. seed: None for a random one.
    """

    model: ServedModel
    encode: Callable[[], list[int]]
    prompt_bytes: int
    temperature: float
    top_p: float
    max_tokens: int | None = None
    default_max_tokens: int | None = None
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()


class Inference:
    """Answers calls with the models of a catalog, within the limits of the API process."""

    def __init__(
        self, catalog: Catalog, limits: ApiLimits, metrics: Metrics, prompts: Path | None = None
    ) -> None:
        """prompts: the folder of stored prompts, if there is one."""
        self.catalog = catalog
        self.limits = limits
        self.prompts = prompts
        self.admission = Admission(limits.max_inflight)
        self._metrics = metrics
        self._tokenizers = ThreadPoolExecutor(limits.tokenizer_threads, thread_name_prefix="tokenize")

    def close(self) -> None:
        self._tokenizers.shutdown(wait=False, cancel_futures=True)

    async def answer(
        self, call: GenerationCall, request_id: str, arrived: float
    ) -> AsyncGenerator[TextDelta, None]:
        """The deltas of one answer, the last with its `end` set. Closing the generator ends the work.

        `arrived` is `perf_counter()` when the request came in. Raises ApiError, before the first delta for
        everything that the request itself is to blame for; EngineUnavailable at any time.
        """
        model = call.model
        self._require_ready(model)
        if call.max_tokens is not None and call.max_tokens > model.max_model_len:
            raise errors.max_tokens_exceeded(model.max_model_len)
        with self.admission.slot():
            prompt = await self._tokenize(call)
            room = model.max_model_len - len(prompt)
            sampling = SamplingParams(
                max_tokens=call.max_tokens or call.default_max_tokens or room,
                temperature=call.temperature,
                top_p=call.top_p,
                top_k=call.top_k,
                seed=random.randint(0, MAX_SEED) if call.seed is None else call.seed,
                eos_ids=model.tokenizer.eos_ids,
            )
            timer = self._metrics.generation(model.id, arrived)
            reason = "abort"
            try:
                async with aclosing(model.generate(request_id, prompt, sampling, call.stop)) as deltas:
                    async for delta in deltas:
                        timer.tokens(delta.generated)
                        if delta.end is not None:
                            reason = _FINISHED_REASONS[delta.end]
                        yield delta
            except ModelFailure as exc:
                reason = "error"
                errors.log_unexpected(exc, request_id)
                raise errors.model_error(self.catalog.arn(model.id)) from exc
            except Exception:
                reason = "error"
                raise
            finally:
                timer.ended(reason)

    def _require_ready(self, model: ServedModel) -> None:
        self.admission.check()
        if not model.engine.ready:
            failed = self.catalog.failure(model) is not None
            raise errors.service_unavailable() if failed else errors.model_not_ready()

    async def _tokenize(self, call: GenerationCall) -> list[int]:
        """The prompt's token ids, at least one and fewer than the context holds."""
        limit = call.model.max_model_len
        if call.model.exceeds_context(call.prompt_bytes):
            raise errors.prompt_too_long(limit)
        try:
            prompt = await asyncio.get_running_loop().run_in_executor(self._tokenizers, call.encode)
        except ChatTemplateError as exc:
            raise errors.prompt_refused(str(exc)) from exc
        if not prompt:
            raise errors.prompt_refused("The prompt has no tokens in this model's vocabulary.")
        if len(prompt) >= limit:
            raise errors.prompt_too_long(limit)
        return prompt
