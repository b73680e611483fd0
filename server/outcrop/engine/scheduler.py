"""Continuous batching: which requests run in the next step, and what a step's result means for them."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Mapping

import msgspec
import numpy as np

from outcrop.backends.base import I32, Capabilities, StepOutput
from outcrop.engine.block_pool import BlockPool
from outcrop.engine.buckets import BucketTable
from outcrop.engine.edits import Matcher, edits_of
from outcrop.engine.messages import FinishReason, GenerationDelta, GenerationRequest, TokenLogprobs
from outcrop.engine.news import Columns, StepNews
from outcrop.engine.policy import Policy, QueueView
from outcrop.engine.prefix_cache import PrefixCache
from outcrop.engine.request import Request, Status
from outcrop.engine.scheduled_step import ScheduledStep
from outcrop.engine.slots import Flags, Index, Slots
from outcrop.engine.speculation import Drafter, accepted
from outcrop.engine.stats import EngineStats
from outcrop_compile.bucket import StepKind

_NO_ROWS = np.empty(0, dtype=np.intp)
_NO_COLUMNS: Columns = (np.empty(0, dtype=np.object_), _NO_ROWS, _NO_ROWS, _NO_ROWS)


def _never_cached(block: int) -> bool:
    return False


class RefusedError(ValueError):
    """This request can never run on this engine; the message says why."""


class Scheduler:
    """Decides every step and keeps the books; knows neither time, nor device, nor sockets.

    The life of a request: building (if it has a grammar) -> waiting (both hold nothing) -> running (holds
    a slot and blocks) -> draining (finished, aborted or preempted; still in a submitted step) -> gone, or
    waiting again if preempted.
    Steps are planned from counts alone, so a step can be scheduled before the one before it was
    collected: a row that turns out to have finished is a zombie there, and its result is dropped. The
    exception is a request whose next step depends on its last token (a grammar, a penalty, guesses at what
    follows): it sits out until that token was read.
    A block or slot is reused only once no submitted step can touch it.

    What happens to every row of every step happens in columns (`Slots`); a request's own object is looked
    at when it comes, is prefilled, fills a block, has edits, or goes.

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
        drafter: Drafter | None = None,
    ) -> None:
        """drafter: guesses at tokens, which steps verify in buckets of that kind; None for no guesses."""
        if capabilities.max_model_len > capabilities.num_blocks * capabilities.block_size:
            raise ValueError(
                f"max_model_len {capabilities.max_model_len} needs more than the {capabilities.num_blocks} "
                f"KV blocks of {capabilities.block_size} tokens that exist"
            )
        self.capabilities = capabilities
        self.buckets = buckets
        self.policy = policy
        self.drafter = drafter
        self.slots = Slots(capabilities, max(bucket.blocks for bucket in buckets.buckets))
        self.pool = BlockPool(capabilities.num_blocks)
        self.cache = PrefixCache(self.pool, capabilities.block_size) if prefix_cache else None
        self._is_cached = self.cache.is_cached if self.cache is not None else _never_cached
        self.requests: dict[str, Request] = {}
        self.waiting: list[Request] = []  # sorted by order
        self.running: list[Request] = []  # sorted by order
        self.prefilling: list[Request] = []  # those of them with prompt left to compute, sorted by order
        self.draining: list[Request] = []
        self._building = 0
        self._arrivals = 0
        self._scheduled = self._applied = 0  # numbers of the latest steps
        self.prefills_in_a_row = self.decodes_in_a_row = self.prefilled = 0  # as in QueueView
        self._may_end = np.zeros(capabilities.vocab_size, dtype=np.bool_)  # tokens that end some request
        self._all = np.ones(capabilities.max_rows, dtype=np.bool_)  # each row of a decode step samples
        self.totals = EngineStats()

    # -- requests come and go --------------------------------------------------------------------

    def add(self, message: GenerationRequest) -> GenerationDelta | None:
        """Queue a request. Returns its last delta at once if nothing is left to generate (a resumed
        request that was complete). Raises RefusedError."""
        limit = self.capabilities.max_model_len
        if not message.prompt:
            raise RefusedError("the prompt is empty")
        if message.sampling.logprobs is not None and self.capabilities.logprobs is None:
            raise RefusedError("this backend tells no log probabilities")
        if len(message.prompt) >= limit:
            raise RefusedError(f"the prompt has {len(message.prompt)} tokens; the context holds {limit}")
        if message.request_id in self.requests:
            raise RefusedError(f"request {message.request_id} is already here")
        request = Request.from_message(message, self._arrivals, limit)
        self._arrivals += 1
        if len(request.tokens) >= request.limit:
            reason = FinishReason.LENGTH if len(request.tokens) < limit else FinishReason.CONTEXT
            return GenerationDelta(request.id, [], self._generated(request), finish=reason)
        self.requests[request.id] = request
        self.totals.prompt_tokens += request.prompt_len
        for token in request.sampling.eos_ids:
            if 0 <= token < len(self._may_end):
                self._may_end[token] = True
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
        return None if reason is None else self._end(request, reason)

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
        """A running request has to sit out the next step unless one that is submitted is collected first:
        what may come next depends on a token that the host has not read yet."""
        slots = self.slots
        return slots.followers > 0 and bool((slots.follows & (slots.total > slots.known)).any())

    @property
    def _holds_background(self) -> bool:
        """Requests of the background stand still: another one runs or waits. Both queues have it first."""
        return any(queue and not queue[0].is_background for queue in (self.running, self.waiting))

    def in_flight(self, request: Request) -> bool:
        """Whether a submitted, uncollected step has a row of this request, which has a slot."""
        return bool(self.slots.last_step[request.slot] > self._applied)

    # -- the next step ---------------------------------------------------------------------------

    def schedule(self) -> ScheduledStep | None:
        """The next step, or None if nothing can run before a submitted step is collected."""
        if (self.waiting or self.prefilling) and self.policy.choose(self._view()) is StepKind.PREFILL:
            step = self._schedule_prefill() or self._schedule_decode()
        else:
            step = self._schedule_decode() or self._schedule_prefill()
        if step is None:
            return None
        self._scheduled = step.number
        self.slots.last_step[step.slots] = step.number
        bucket = step.bucket
        if bucket.kind is StepKind.PREFILL:
            self.prefills_in_a_row += 1
            self.prefilled += bucket.rows * bucket.width
            self.decodes_in_a_row = 0
            self.totals.prefill_steps += 1
        else:
            self.prefills_in_a_row = self.prefilled = 0
            self.decodes_in_a_row += 1
            self.totals.decode_steps += 1
        used = len(step.slots) if bucket.kind is StepKind.DECODE else int((step.ends - step.starts).sum())
        self.totals.padded_tokens += bucket.rows * bucket.width - used
        return step

    def _view(self) -> QueueView:
        return QueueView(
            prefillable=len(self.prefilling) + len(self.waiting),
            decodable=len(self.running) - len(self.prefilling),
            prefills_in_a_row=self.prefills_in_a_row,
            decodes_in_a_row=self.decodes_in_a_row,
            prefilled=self.prefilled,
        )

    def _schedule_prefill(self) -> ScheduledStep | None:
        """The first request's next chunk, and others beside it while they fit and half the step is used."""
        kind = StepKind.PREFILL
        rows: list[tuple[Request, int, bool]] = []
        width = blocks = used = 0
        for request in self._prefill_candidates():
            left = int(self.slots.known[request.slot]) - request.computed
            chunk = self.buckets.chunk(left)
            new_width = max(width, chunk)
            new_blocks = max(blocks, self._blocks_for(request.computed + chunk))
            if rows:
                if not self.buckets.fits(kind, len(rows) + 1, new_width, new_blocks):
                    break
                bucket = self.buckets.pick(kind, len(rows) + 1, new_width, new_blocks)
                if bucket.rows * bucket.width > 2 * (used + chunk):
                    break
            width, blocks, used = new_width, new_blocks, used + chunk
            rows.append((request, chunk, chunk == left))
            if len(rows) == self.buckets.max_rows(kind):
                break
        if not rows:
            return None
        step = ScheduledStep(
            self._scheduled + 1,
            self.buckets.pick(kind, len(rows), width, blocks),
            slots=np.array([request.slot for request, _, _ in rows], dtype=np.intp),
            starts=np.array([request.computed for request, _, _ in rows], dtype=np.intp),
            ends=np.array([request.computed + chunk for request, chunk, _ in rows], dtype=np.intp),
            samples=np.array([samples for _, _, samples in rows], dtype=np.bool_),
            begun=_NO_ROWS,
        )
        for request, chunk, samples in rows:
            request.computed += chunk
            if samples:
                self.prefilling.remove(request)
                self.slots.decode(request.slot)
        return step

    def _prefill_candidates(self) -> Iterator[Request]:
        """Requests with prompt left, in order; a waiting one is admitted when its turn comes, and none
        is admitted past one that does not fit."""
        started, holds = list(self.prefilling), self._holds_background
        while started or self.waiting:
            if holds and all(queue[0].is_background for queue in (started, self.waiting) if queue):
                return
            if started and (not self.waiting or started[0].order < self.waiting[0].order):
                yield started.pop(0)
            elif self._admit(self.waiting[0]):
                yield self.waiting.pop(0)
            else:
                # Trying to admit may have preempted some of them.
                yield from (request for request in started if request.status is Status.RUNNING)
                return

    def _schedule_decode(self) -> ScheduledStep | None:
        slots = self.slots
        ready = slots.decoding & (slots.total < slots.limit)
        if slots.followers:
            ready &= ~slots.follows | (slots.total == slots.known)
        if slots.backgrounds and self._holds_background:
            ready &= ~slots.background
        rows: Index = ready.nonzero()[0]
        total = slots.total[rows]
        lacks = total > slots.room[rows]
        # Counting is several times faster than any() and all(), which go through Python.
        if np.count_nonzero(lacks) and not self._grow(rows[lacks]):
            stays = slots.decoding[rows] & (total <= slots.room[rows])
            rows, total, lacks = rows[stays], total[stays], lacks[stays]
        if not len(rows):
            return None
        slots.total[rows] = total + 1
        if self.drafter is not None:
            verify = self._schedule_verify(rows, total, self.drafter)
            if verify is not None:
                return verify
            # Blocks taken for guesses were there before.
            lacks = (total - 1) % self.capabilities.block_size == 0
        blocks, samples = self._blocks_for(int(total.max())), self._all[: len(rows)]
        bucket = self.buckets.pick(StepKind.DECODE, len(rows), 1, blocks)
        begun = lacks.nonzero()[0]
        return ScheduledStep(self._scheduled + 1, bucket, rows, total - 1, total, samples, begun)

    def _schedule_verify(self, rows: Index, total: Index, drafter: Drafter) -> ScheduledStep | None:
        """A step of these rows with guesses, each row having `total` tokens, all known; None if there are no
        guesses, or they cannot be verified in one step of all rows."""
        slots, kind = self.slots, StepKind.VERIFY
        width = self.buckets.max_width(kind)
        # Edits of the logits follow every token, and a step has one set of them a row; so with logprobs.
        alone = slots.edited[rows] | slots.scored[rows]
        if len(rows) > self.buckets.max_rows(kind) or alone.any():
            return None
        guesses: list[I32] = []
        for slot, known in zip(rows.tolist(), total.tolist(), strict=True):
            most = min(width - 1, int(slots.limit[slot]) - known - 1)
            tokens = slots.tokens[slot, :known]
            guesses.append(drafter.propose(tokens, most) if most > 0 else tokens[:0])
        ends = total + np.array([len(each) for each in guesses], dtype=np.intp)
        blocks = self._blocks_for(int(ends.max()))
        if (ends == total).all() or not self.buckets.fits(kind, len(rows), width, blocks):
            return None
        drafts = np.zeros((len(rows), width - 1), dtype=np.int32)
        for index, (slot, known) in enumerate(zip(rows.tolist(), total.tolist(), strict=True)):
            ends[index] = self._room(slot, int(ends[index]))
            count = int(ends[index]) - known
            drafts[index, :count] = guesses[index][:count]
        if (ends == total).all():
            return None
        self.totals.drafted_tokens += int((ends - total).sum())
        bucket = self.buckets.pick(kind, len(rows), width, blocks)
        samples = self._all[: len(rows)]
        return ScheduledStep(self._scheduled + 1, bucket, rows, total - 1, ends, samples, _NO_ROWS, drafts)

    # -- KV blocks -------------------------------------------------------------------------------

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.capabilities.block_size)

    def _admit(self, request: Request) -> bool:
        """Give a waiting request a slot and the blocks of its whole prompt, leaving each running request
        one block to grow into. May preempt requests of strictly lower priority."""
        reserved = self._reserve(request) if self.slots.free else None
        if reserved is None:
            worst = self.running[-1] if self.running else None
            if worst is not None and worst.priority < request.priority and not self.draining:
                self._preempt(worst)
            return False
        blocks, matched = reserved
        follows = self.drafter is not None or (request.edits is not None and request.edits.follows_tokens)
        request.slot = self.slots.occupy(request, blocks, matched, follows=follows)
        request.status = Status.RUNNING
        request.computed = matched * self.capabilities.block_size
        request.chain = self.cache.number(blocks[matched - 1]) if self.cache and matched else request.salt
        request.admissions += 1
        if request.admissions == 1:
            request.cached = min(request.computed, request.prompt_len)
            request.held = self._held(request)
            self.totals.prefix_queries += request.prompt_len
            self.totals.prefix_hits += request.cached
        insort(self.running, request, key=lambda r: r.order)
        insort(self.prefilling, request, key=lambda r: r.order)
        return True

    def _reserve(self, request: Request) -> tuple[list[int], int] | None:
        """The blocks of a request's known tokens, and how many of them come from the prefix cache; None if
        there are too few."""
        needed, spare = self._blocks_for(len(request.tokens)), len(self.running)
        # Looking for a prefix takes time, and a request at the head of the queue may wait for many steps.
        if self.pool.num_free < (1 if self.cache else needed) + spare:
            return None
        matched = self.cache.match(request.tokens, request.salt) if self.cache else []
        for block in matched:
            self.pool.share(block)
        if self.pool.num_free < needed - len(matched) + spare:
            self.pool.release(matched, self._is_cached)
            return None
        return matched + self.pool.allocate(needed - len(matched)), len(matched)

    def _held(self, request: Request) -> int:
        """Prompt tokens that the prefix cache holds, one just admitted being served `cached` of them."""
        following = request.tokens[request.computed : request.prompt_len]
        # No more than the last block: any other would be served.
        if self.cache and len(following) == self.capabilities.block_size:
            return request.cached + len(following) * self.cache.holds(request.chain, following)
        return request.cached

    def _grow(self, short: Index) -> bool:
        """One more block for each of these slots. False if some got none, and must sit out this step or
        were preempted."""
        if len(short) <= self.pool.num_free:
            self.slots.grow(short, self.pool.allocate(len(short)))
            return True
        requests: list[Request] = self.slots.owners[short].tolist()
        for request in sorted(requests, key=lambda r: r.order):
            if request.status is Status.RUNNING and self._free_one(request):
                self.slots.grow(np.array([request.slot], dtype=np.intp), self.pool.allocate(1))
        return False

    def _room(self, slot: int, tokens: int) -> int:
        """Tokens, of so many wanted, that a slot's blocks hold after taking what is free and spare."""
        while (held := int(self.slots.room[slot])) < tokens:
            if self.pool.num_free <= len(self.running):
                return held
            self.slots.grow(np.array([slot], dtype=np.intp), self.pool.allocate(1))
        return tokens

    def _free_one(self, request: Request) -> bool:
        """See to it that a block is free for this request, by preempting the last in order; False if there
        is none yet (or it was preempted itself)."""
        if self.pool.num_free == 0 and not self.draining:
            worst = self.running[-1]
            self._preempt(worst)
            if worst is request:
                return False
        return self.pool.num_free > 0

    def _preempt(self, request: Request) -> None:
        """Take a running request's blocks; it will be computed again from its tokens, and keeps them."""
        self.totals.preemptions += 1
        self._stop(request)
        self._drain(request)

    def _stop(self, request: Request) -> None:
        """A running request is to run no more."""
        self.running.remove(request)
        if not self.slots.decoding[request.slot]:
            self.prefilling.remove(request)
        self.slots.stop(request.slot)
        request.status = Status.DRAINING
        self.draining.append(request)

    def _end(self, request: Request, reason: FinishReason, *, last: int | None = None) -> GenerationDelta:
        """Finish a request. last: the token that ended it, if its client is to see it."""
        generated = self._generated(request)
        self._finish(request, reason)
        tokens = [] if last is None else [last]
        return GenerationDelta(request.id, tokens, generated, request.cached, reason, held=request.held)

    def _finish(self, request: Request, reason: FinishReason) -> None:
        del self.requests[request.id]
        request.finish = reason
        if request.status is Status.BUILDING:
            self._building -= 1
        elif request.status is Status.WAITING:
            self.waiting.remove(request)
        else:
            if request.status is Status.RUNNING:
                self._stop(request)
            self.slots.live[request.slot] = False
            self._drain(request)

    def _drain(self, request: Request) -> None:
        """Free what a draining request holds, once no submitted step can touch it."""
        if self.in_flight(request):
            return
        slot = request.slot
        self.draining.remove(request)
        self.pool.release(self.slots.blocks(slot), self._is_cached)
        if request.finish is None:
            request.tokens = self.slots.known_tokens(slot)
            self._enqueue(request)
        self.slots.vacate(slot)
        request.slot = -1

    def _enqueue(self, request: Request) -> None:
        request.status = Status.WAITING
        insort(self.waiting, request, key=lambda r: r.order)

    # -- a step's result -------------------------------------------------------------------------

    def apply(self, step: ScheduledStep, output: StepOutput) -> StepNews:
        """Book a collected step: tokens appended, ends detected, blocks freed. In submission order."""
        self._applied = step.number
        rows = step.slots
        others: list[GenerationDelta] = []
        valid = self.slots.live[rows]
        if np.count_nonzero(output.finite[: len(rows)]) < len(rows):
            finite = output.finite[: len(rows)] != 0
            failed = self.slots.owners[rows[valid & ~finite]].tolist()
            others += [self._end(request, FinishReason.ERROR) for request in failed]
            valid &= finite
        if step.drafts is not None:
            columns = self._apply_verified(step, output.tokens[: len(rows)], valid, others)
        else:
            if self.cache is not None:
                self._register_blocks(rows, step.ends, valid)
            valid &= step.samples
            tokens = output.tokens[: len(rows)].astype(np.intp)
            if (count := np.count_nonzero(valid)) < len(valid):
                rows, tokens = rows[valid], tokens[valid]
            told = self.slots.told(step.slots, step.samples, output.logprobs) if count else {}
            columns = self._append(rows, tokens, others, told) if count else _NO_COLUMNS
        news = StepNews(*columns, others)
        for request in self.draining.copy():
            self._drain(request)
        return news

    def _append(
        self, rows: Index, tokens: Index, others: list[GenerationDelta], logprobs: Mapping[int, TokenLogprobs]
    ) -> Columns:
        """One more token for each of these slots. Returns the columns of StepNews; what else there is to tell
        is in `others` then. logprobs: by slot, of those whose tokens come with them."""
        slots = self.slots
        known = slots.known[rows]
        slots.tokens[rows, known] = tokens
        known += 1
        slots.known[rows] = known
        self.totals.generation_tokens += len(rows)
        # Requests that may end here are looked at one by one.
        looked_at = ((known >= slots.look_from[rows]) | self._may_end[tokens]).nonzero()[0]
        if len(looked_at):
            untold = np.ones(len(rows), dtype=np.bool_)
            for index in looked_at.tolist():
                slot = int(rows[index])
                delta = self._accept(slots.owners[slot], int(tokens[index]), logprobs.get(slot))
                if delta is not None:
                    others.append(delta)
                    untold[index] = False
            rows, tokens, known = rows[untold], tokens[untold], known[untold]
        return slots.owners[rows], rows, tokens, known

    def _apply_verified(
        self, step: ScheduledStep, chosen: I32, valid: Flags, others: list[GenerationDelta]
    ) -> Columns:
        """The tokens of a verify step, all first ones before all second ones: columns as `_append` has them,
        a request once for each token but its last. One that ends takes no more."""
        assert step.drafts is not None
        slots, rows = self.slots, step.slots
        right = accepted(chosen, step.drafts, step.ends - step.starts - 1)
        self.totals.accepted_tokens += int(right[valid].sum())
        columns: list[Columns] = []
        for place in range(int(right.max()) + 1):
            now = valid & (right >= place) & slots.live[rows]
            columns.append(self._append(rows[now], chosen[now, place].astype(np.intp), others, {}))
        going = rows[valid & slots.live[rows]]
        slots.total[going] = slots.known[going]
        if self.cache is not None:
            # After the tokens, for these become the names of the blocks.
            self._register_blocks(rows, step.starts + 1 + right, valid & slots.live[rows])
        requests, slot_numbers, tokens, known = (np.concatenate(each) for each in zip(*columns, strict=True))
        return requests, slot_numbers, tokens, known

    def _accept(self, request: Request, token: int, logprobs: TokenLogprobs | None) -> GenerationDelta | None:
        """A request has this token more: its delta, if that ends it or log probabilities come with it."""
        if request.edits is not None:
            request.edits.accept(token)
        reason = self._finish_reason(request, token)
        if reason is None:
            if logprobs is None:
                return None
            generated = self._generated(request)
            delta = GenerationDelta(request.id, [token], generated, request.cached, held=request.held)
        else:
            unseen = reason is FinishReason.GRAMMAR or token in request.sampling.eos_ids
            delta = self._end(request, reason, last=None if unseen else token)
        return msgspec.structs.replace(delta, logprobs=[logprobs]) if logprobs and delta.tokens else delta

    def _finish_reason(self, request: Request, token: int) -> FinishReason | None:
        verdict = self._grammar_verdict(request)
        if verdict is not None:
            return verdict
        if token in request.sampling.eos_ids:
            return FinishReason.EOS
        if self._generated(request) >= request.sampling.max_tokens:
            return FinishReason.LENGTH
        if self.slots.known[request.slot] >= request.limit:
            return FinishReason.CONTEXT
        return None

    def _generated(self, request: Request) -> int:
        """Tokens of its output that the host knows."""
        known = len(request.tokens) if request.slot < 0 else int(self.slots.known[request.slot])
        return known - request.prompt_len

    def _grammar_verdict(self, request: Request) -> FinishReason | None:
        """Why the grammar ends a request here: it can go no further, or nothing but the end can follow,
        for which no step need be spent."""
        if request.edits is None:
            return None
        if request.edits.failed:
            return FinishReason.GRAMMAR
        return FinishReason.EOS if request.edits.finished else None

    def _register_blocks(self, rows: Index, computed: Index, valid: Flags) -> None:
        """Offer to the prefix cache the blocks whose every token is known and computed without error, each
        slot's first `computed` tokens being so."""
        full = computed // self.capabilities.block_size
        for index in (full > self.slots.registered[rows]).nonzero()[0].tolist():
            slot = int(rows[index])
            request = self.slots.owners[slot]
            if valid[index] and request.status is Status.RUNNING:
                self._register(request, slot, int(full[index]))

    def _register(self, request: Request, slot: int, full: int) -> None:
        assert self.cache is not None
        size, blocks = self.capabilities.block_size, self.slots.tables[slot]
        for index in range(int(self.slots.registered[slot]), full):
            tokens = self.slots.known_tokens(slot, index * size, (index + 1) * size)
            request.chain = self.cache.register(request.chain, tokens, int(blocks[index]))
        self.slots.registered[slot] = full

    # -- figures ---------------------------------------------------------------------------------

    def stats(self) -> EngineStats:
        """The totals so far, with the gauges of this moment."""
        self.totals.running = len(self.running)
        self.totals.waiting = len(self.waiting)
        self.totals.kv_blocks_used = self.pool.num_blocks - self.pool.num_free
        self.totals.kv_blocks_total = self.pool.num_blocks
        return self.totals
