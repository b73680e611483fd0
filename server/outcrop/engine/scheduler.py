"""Continuous batching: which requests run in the next step, and what a step's result means for them."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass

from outcrop.backends.base import Bucket, Capabilities, StepKind, StepOutput
from outcrop.engine.block_pool import BlockPool
from outcrop.engine.buckets import BucketTable
from outcrop.engine.edits import Matcher, edits_of
from outcrop.engine.messages import FinishReason, GenerationDelta, GenerationRequest
from outcrop.engine.policy import Policy, QueueView
from outcrop.engine.prefix_cache import PrefixCache
from outcrop.engine.request import Request, Status
from outcrop.engine.stats import EngineStats


class RefusedError(ValueError):
    """This request can never run on this engine; the message says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request's share of a step: tokens [start, start + count), and whether the next is sampled."""

    request: Request
    start: int
    count: int
    samples: bool


@dataclass(frozen=True, slots=True)
class ScheduledStep:
    bucket: Bucket
    rows: list[Row]


class Scheduler:
    """Decides every step and keeps the books; knows neither time, nor device, nor sockets.

    The life of a request: building (if it has a grammar) -> waiting (both hold nothing) -> running (holds
    a slot and blocks) -> draining (finished, aborted or preempted; still in a submitted step) -> gone, or
    waiting again if preempted.
    Steps are planned from counts alone, so a step can be scheduled before the one before it was
    collected: a row that turns out to have finished is a zombie there, and its result is dropped. The
    exception is a request whose next choice depends on its last token (a grammar, a penalty): it sits out
    until that token was read.
    A block or slot is reused only once no submitted step can touch it.

    Order is by priority, then arrival, without overtaking among equals. The first request in that order
    is never preempted, so the engine always makes progress. INVARIANTS.md numbers what must hold.
    """

    def __init__(
        self,
        capabilities: Capabilities,
        buckets: BucketTable,
        policy: Policy,
        *,
        prefix_cache: bool = True,
    ) -> None:
        if capabilities.max_model_len > capabilities.num_blocks * capabilities.block_size:
            raise ValueError(
                f"max_model_len {capabilities.max_model_len} needs more than the {capabilities.num_blocks} "
                f"KV blocks of {capabilities.block_size} tokens that exist"
            )
        self.capabilities = capabilities
        self.buckets = buckets
        self.policy = policy
        self.pool = BlockPool(capabilities.num_blocks)
        self.cache = PrefixCache(self.pool, capabilities.block_size) if prefix_cache else None
        self.requests: dict[str, Request] = {}
        self.waiting: list[Request] = []  # sorted by order
        self.running: list[Request] = []  # sorted by order
        self.draining: set[Request] = set()
        self._building = 0
        self._free_slots = list(range(capabilities.max_rows - 1, -1, -1))
        self._arrivals = 0
        self._prefills_in_a_row = self._decodes_in_a_row = 0
        self.totals = EngineStats()

    # -- requests come and go --------------------------------------------------------------------

    def add(self, message: GenerationRequest) -> GenerationDelta | None:
        """Queue a request. Returns its last delta at once if nothing is left to generate (a resumed
        request that was complete). Raises RefusedError."""
        limit = self.capabilities.max_model_len
        if not message.prompt:
            raise RefusedError("the prompt is empty")
        if len(message.prompt) >= limit:
            raise RefusedError(f"the prompt has {len(message.prompt)} tokens; the context holds {limit}")
        if message.request_id in self.requests:
            raise RefusedError(f"request {message.request_id} is already here")
        request = Request.from_message(message, self._arrivals)
        self._arrivals += 1
        if not request.may_sample(limit):
            reason = FinishReason.LENGTH if len(request.tokens) < limit else FinishReason.CONTEXT
            return GenerationDelta(request.id, [], request.num_output, finish=reason)
        self.requests[request.id] = request
        self.totals.prompt_tokens += request.prompt_len
        if request.sampling.grammar:
            request.status = Status.BUILDING
            self._building += 1
        else:
            self._make_ready(request, None)
        return None

    def grammar_built(self, request_id: str, grammar: str, matcher: Matcher | None) -> GenerationDelta | None:
        """The grammar of an added request is there, at its start, and the request may run; None if it
        cannot be built. Returns the request's last delta if this ends it. A request that went away
        meanwhile is none of our business any more."""
        request = self.requests.get(request_id)
        if request is None or request.status is not Status.BUILDING or request.sampling.grammar != grammar:
            return None
        reason: FinishReason | None = FinishReason.GRAMMAR
        if matcher is not None:
            self._building -= 1
            self._make_ready(request, matcher)
            reason = self._grammar_verdict(request)
        if reason is None:
            return None
        self._finish(request, reason)
        return GenerationDelta(request.id, [], request.num_output, finish=reason)

    def _make_ready(self, request: Request, matcher: Matcher | None) -> None:
        """Let a request wait for its turn, its edits having seen the tokens it was resumed with."""
        prompt, output = request.tokens[: request.prompt_len], request.tokens[request.prompt_len :]
        request.edits = edits_of(request.sampling, prompt, self.capabilities.vocab_size, matcher)
        if request.edits is not None:
            for token in output:
                request.edits.accept(token)
        self._enqueue(request)

    def abort(self, request_id: str) -> bool:
        """Forget a request whose client is gone. False if it is not here (it may just have finished)."""
        request = self.requests.get(request_id)
        if request is None:
            return False
        self._finish(request, FinishReason.ABORT)
        return True

    @property
    def idle(self) -> bool:
        """No request is here, or none but those whose grammar is being built."""
        return len(self.requests) == self._building and not self.draining

    @property
    def awaits_token(self) -> bool:
        """A running request has to sit out the next step unless one that is submitted is collected first."""
        return any(request.awaits_token for request in self.running)

    # -- the next step ---------------------------------------------------------------------------

    def schedule(self) -> ScheduledStep | None:
        """The next step, or None if nothing can run before a submitted step is collected."""
        kind = self.policy.choose(self._view())
        step = self._schedule_prefill() if kind is StepKind.PREFILL else self._schedule_decode()
        if step is None:
            step = self._schedule_decode() if kind is StepKind.PREFILL else self._schedule_prefill()
        if step is None:
            return None
        for row in step.rows:
            request = row.request
            request.in_flight += 1
            request.computed = row.start + row.count
            if row.samples:
                request.prefilled = True
                request.pending += 1
        used = sum(row.count for row in step.rows)
        self.totals.padded_tokens += step.bucket.rows * step.bucket.width - used
        if step.bucket.kind is StepKind.PREFILL:
            self._prefills_in_a_row += 1
            self._decodes_in_a_row = 0
            self.totals.prefill_steps += 1
        else:
            self._prefills_in_a_row = 0
            self._decodes_in_a_row += 1
            self.totals.decode_steps += 1
        return step

    def _view(self) -> QueueView:
        left = sum(not request.prefilled for request in self.running)
        return QueueView(
            prefillable=left + len(self.waiting),
            decodable=len(self.running) - left,
            prefills_in_a_row=self._prefills_in_a_row,
            decodes_in_a_row=self._decodes_in_a_row,
        )

    def _schedule_prefill(self) -> ScheduledStep | None:
        """The first request's next chunk, and others beside it while they fit and half the step is used."""
        kind, widest = StepKind.PREFILL, self.buckets.max_width(StepKind.PREFILL)
        rows: list[Row] = []
        width = blocks = used = 0
        for request in self._prefill_candidates():
            chunk = min(request.prefill_left, widest)
            new_width = max(width, chunk)
            new_blocks = max(blocks, self._blocks_for(request.computed + chunk))
            if rows:
                if not self.buckets.fits(kind, len(rows) + 1, new_width, new_blocks):
                    break
                bucket = self.buckets.pick(kind, len(rows) + 1, new_width, new_blocks)
                if bucket.rows * bucket.width > 2 * (used + chunk):
                    break
            width, blocks, used = new_width, new_blocks, used + chunk
            rows.append(Row(request, request.computed, chunk, samples=chunk == request.prefill_left))
            if len(rows) == self.buckets.max_rows(kind):
                break
        if not rows:
            return None
        return ScheduledStep(self.buckets.pick(kind, len(rows), width, blocks), rows)

    def _prefill_candidates(self) -> Iterator[Request]:
        """Requests with prompt left, in order; a waiting one is admitted when its turn comes, and none
        is admitted past one that does not fit."""
        started = [request for request in self.running if not request.prefilled]
        while started or self.waiting:
            if started and (not self.waiting or started[0].order < self.waiting[0].order):
                yield started.pop(0)
            elif self._admit(self.waiting[0]):
                yield self.waiting.pop(0)
            else:
                # Trying to admit may have preempted some of them.
                yield from (request for request in started if request.status is Status.RUNNING)
                return

    def _schedule_decode(self) -> ScheduledStep | None:
        rows: list[Row] = []
        blocks = 0
        for request in list(self.running):
            if request.status is not Status.RUNNING:
                continue  # preempted just now for an earlier one
            if not request.prefilled or not request.may_sample(self.capabilities.max_model_len):
                continue
            if request.awaits_token:
                continue
            needed = self._blocks_for(request.total)
            if needed > len(request.blocks) and not self._grow(request):
                continue
            blocks = max(blocks, needed)
            rows.append(Row(request, request.total - 1, 1, samples=True))
        if not rows:
            return None
        return ScheduledStep(self.buckets.pick(StepKind.DECODE, len(rows), 1, blocks), rows)

    # -- KV blocks -------------------------------------------------------------------------------

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.capabilities.block_size)

    def _admit(self, request: Request) -> bool:
        """Give a waiting request a slot and the blocks of its whole prompt, leaving each running request
        one block to grow into. May preempt requests of strictly lower priority."""
        matched = self.cache.match(request.tokens, request.salt) if self.cache else []
        for block in matched:
            self.pool.share(block)
        needed = self._blocks_for(len(request.tokens)) - len(matched)
        if not self._free_slots or self.pool.num_free < needed + len(self.running):
            self.pool.release(matched, self._is_cached)
            worst = self.running[-1] if self.running else None
            if worst is not None and worst.priority < request.priority and not self.draining:
                self._preempt(worst)
            return False
        request.blocks = matched + self.pool.allocate(needed)
        request.slot = self._free_slots.pop()
        request.status = Status.RUNNING
        request.computed = request.confirmed = len(matched) * self.capabilities.block_size
        request.registered = len(matched)
        request.chain = self.cache.number(matched[-1]) if self.cache and matched else request.salt
        request.admissions += 1
        if request.admissions == 1:
            request.cached = min(request.computed, request.prompt_len)
            self.totals.prefix_queries += request.prompt_len
            self.totals.prefix_hits += request.cached
        insort(self.running, request, key=lambda r: r.order)
        return True

    def _grow(self, request: Request) -> bool:
        """One more block for a running request, preempting the last in order if none is free. False if
        the request must sit out this step (or was preempted itself)."""
        if self.pool.num_free == 0:
            if self.draining:
                return False  # blocks are on their way
            worst = self.running[-1]
            self._preempt(worst)
            if worst is request or self.pool.num_free == 0:
                return False
        request.blocks += self.pool.allocate(1)
        return True

    def _preempt(self, request: Request) -> None:
        """Take a running request's blocks; it will be computed again from its tokens, and keeps them."""
        self.totals.preemptions += 1
        self.running.remove(request)
        request.status = Status.DRAINING
        self.draining.add(request)
        self._drain(request)

    def _finish(self, request: Request, reason: FinishReason) -> None:
        del self.requests[request.id]
        request.finish = reason
        if request.status is Status.BUILDING:
            self._building -= 1
            return
        if request.status is Status.WAITING:
            self.waiting.remove(request)
            return
        if request.status is Status.RUNNING:
            self.running.remove(request)
            request.status = Status.DRAINING
            self.draining.add(request)
        self._drain(request)

    def _drain(self, request: Request) -> None:
        """Free what a draining request holds, once no submitted step can touch it."""
        if request.in_flight:
            return
        self.draining.remove(request)
        self.pool.release(request.blocks, self._is_cached)
        self._free_slots.append(request.slot)
        request.blocks, request.slot = [], -1
        request.computed = request.confirmed = request.registered = 0
        request.prefilled = False
        if request.finish is None:
            self._enqueue(request)

    def _enqueue(self, request: Request) -> None:
        request.status = Status.WAITING
        insort(self.waiting, request, key=lambda r: r.order)

    def _is_cached(self, block: int) -> bool:
        return self.cache is not None and self.cache.is_cached(block)

    # -- a step's result -------------------------------------------------------------------------

    def apply(self, step: ScheduledStep, output: StepOutput) -> list[GenerationDelta]:
        """Book a collected step: tokens appended, ends detected, blocks freed. In submission order."""
        deltas = []
        for index, row in enumerate(step.rows):
            request = row.request
            request.in_flight -= 1
            if row.samples:
                request.pending -= 1
            if request.finish is None:
                delta = self._apply_row(row, int(output.tokens[index]), bool(output.finite[index]))
                if delta is not None:
                    deltas.append(delta)
            if request.status is Status.DRAINING and request in self.draining:
                self._drain(request)
        return deltas

    def _apply_row(self, row: Row, token: int, finite: bool) -> GenerationDelta | None:
        request = row.request
        if not finite:
            self._finish(request, FinishReason.ERROR)
            return GenerationDelta(request.id, [], request.num_output, request.cached, FinishReason.ERROR)
        if request.status is Status.RUNNING:
            request.confirmed = row.start + row.count
            self._register_blocks(request)
        if not row.samples:
            return None
        request.append(token)
        self.totals.generation_tokens += 1
        reason = self._finish_reason(request, token)
        if reason is not None:
            self._finish(request, reason)
        unseen = reason is FinishReason.GRAMMAR or token in request.sampling.eos_ids
        return GenerationDelta(
            request.id, [] if unseen else [token], request.num_output, request.cached, reason
        )

    def _finish_reason(self, request: Request, token: int) -> FinishReason | None:
        verdict = self._grammar_verdict(request)
        if verdict is not None:
            return verdict
        if token in request.sampling.eos_ids:
            return FinishReason.EOS
        if request.num_output >= request.sampling.max_tokens:
            return FinishReason.LENGTH
        if len(request.tokens) >= self.capabilities.max_model_len:
            return FinishReason.CONTEXT
        return None

    def _grammar_verdict(self, request: Request) -> FinishReason | None:
        """Why the grammar ends a request here: it can go no further, or nothing but the end can follow,
        for which no step need be spent."""
        if request.edits is None:
            return None
        if request.edits.failed:
            return FinishReason.GRAMMAR
        return FinishReason.EOS if request.edits.finished else None

    def _register_blocks(self, request: Request) -> None:
        """Offer to the prefix cache the blocks whose every token is known and computed without error."""
        if self.cache is None:
            return
        size = self.capabilities.block_size
        while (request.registered + 1) * size <= request.confirmed:
            index = request.registered
            tokens = request.tokens[index * size : (index + 1) * size]
            request.chain = self.cache.register(request.chain, tokens, request.blocks[index])
            request.registered += 1

    # -- figures ---------------------------------------------------------------------------------

    def stats(self) -> EngineStats:
        """The totals so far, with the gauges of this moment."""
        self.totals.running = len(self.running)
        self.totals.waiting = len(self.waiting)
        self.totals.kv_blocks_used = self.pool.num_blocks - self.pool.num_free
        self.totals.kv_blocks_total = self.pool.num_blocks
        return self.totals
