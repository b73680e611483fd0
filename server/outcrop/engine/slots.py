"""The state of every running request in columns: what a step over all of them reads and writes at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from outcrop.backends.base import Capabilities, Logprobs
from outcrop.engine.draws import stream_of
from outcrop.engine.messages import TokenLogprobs
from outcrop.engine.request import Request

Index = npt.NDArray[np.intp]
"""Slot numbers, and counters that serve as indices: numpy looks these up several times faster than int32."""

Flags = npt.NDArray[np.bool_]


class Slots:
    """One slot for each request that runs or drains; the last one is the sink's, which the padding of a
    step points at.

    A request has its slot until no submitted step can touch it, so in any step that is out, and in the
    news of it, a slot's number stands for one request. S = max_rows + 1, T = max_model_len, B = blocks of
    the longest table. Columns of a free slot are meaningless except that no flag is set.
    """

    def __init__(self, capabilities: Capabilities, max_blocks: int) -> None:
        slots = capabilities.max_rows + 1
        self.sink = capabilities.max_rows
        self.sink_block = capabilities.num_blocks
        self.block_size = capabilities.block_size
        # Zero pages until they are written: a long context costs the memory of the tokens it has.
        self.tokens = np.zeros((slots, capabilities.max_model_len), dtype=np.int32)
        """[S, T] prompt and output, as far as the host knows them."""
        self.known = np.zeros(slots, dtype=np.intp)
        """[S] tokens known to the host."""
        self.total = np.zeros(slots, dtype=np.intp)
        """[S] tokens, with those sampled on the device that the host has not read yet."""
        self.limit = np.zeros(slots, dtype=np.intp)
        """[S] tokens at which the request ends."""
        self.look_from = np.zeros(slots, dtype=np.intp)
        """[S] tokens from which on the request is looked at by itself when it gets one: its limit, or 0 if
        its logits are edited or its tokens come with log probabilities."""
        self.last_step = np.zeros(slots, dtype=np.intp)
        """[S] number of the last submitted step with this slot."""
        self.decoding: Flags = np.zeros(slots, dtype=np.bool_)
        """[S] the request runs, and the step that samples from its last known token was submitted."""
        self.live: Flags = np.zeros(slots, dtype=np.bool_)
        """[S] the request has not ended: the results of its steps count."""
        self.edited: Flags = np.zeros(slots, dtype=np.bool_)
        """[S] the logits of its next token are edited."""
        self.follows: Flags = np.zeros(slots, dtype=np.bool_)
        """[S] the request runs, and what it does in a step depends on the token before: its edits, or the
        guesses at what follows."""
        self.scored: Flags = np.zeros(slots, dtype=np.bool_)
        """[S] its tokens come with log probabilities."""
        self.background: Flags = np.zeros(slots, dtype=np.bool_)
        """[S] the request stands still while others run."""
        self.backgrounds = 0
        """How many requests have their `background` set."""
        self.tables = np.full((slots, max_blocks), self.sink_block, dtype=np.int32)
        """[S, B] KV blocks in order, filled up with the sink."""
        self.room = np.zeros(slots, dtype=np.intp)
        """[S] tokens that the blocks held have room for."""
        self.registered = np.zeros(slots, dtype=np.intp)
        """[S] leading blocks known to the prefix cache."""
        self.sampling = np.zeros((slots, 4), dtype=np.float32)
        """[S, 4] as in StepInput."""
        self.streams = np.zeros(slots, dtype=np.uint64)
        """[S] of random numbers, see `draws.stream_of`."""
        self.owners = np.full(slots, None, dtype=np.object_)
        """[S] the Request."""
        self.followers = 0
        """How many requests have their `follows` set."""
        self.free = list(range(capabilities.max_rows - 1, -1, -1))
        self.changes = 0
        """Goes up whenever the set of decoding slots changes: what was gathered before may be stale."""

    def occupy(self, request: Request, blocks: Sequence[int], registered: int, *, follows: bool) -> int:
        """Give a request a free slot, with the blocks of its known tokens, so many of them from the prefix
        cache; returns the slot."""
        slot = self.free.pop()
        known, held = len(request.tokens), len(blocks)
        self.owners[slot] = request
        self.tokens[slot, :known] = request.tokens
        self.known[slot] = self.total[slot] = known
        self.limit[slot] = request.limit
        self.scored[slot] = request.sampling.logprobs is not None
        self.look_from[slot] = request.limit if request.edits is None and not self.scored[slot] else 0
        self.tables[slot, :held] = blocks
        self.tables[slot, held:] = self.sink_block
        self.room[slot] = held * self.block_size
        self.registered[slot] = registered
        self.live[slot] = True
        self.edited[slot] = request.edits is not None
        self.background[slot] = request.is_background
        self.backgrounds += request.is_background
        self._follow(slot, follows)
        sampling = request.sampling
        self.sampling[slot] = (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
        self.streams[slot] = stream_of(sampling.seed)
        return slot

    def _follow(self, slot: int, follows: bool) -> None:
        self.followers += follows - int(self.follows[slot])
        self.follows[slot] = follows

    def decode(self, slot: int) -> None:
        """The prompt is computed and a token of the answer asked for."""
        self.decoding[slot] = True
        self.total[slot] += 1
        self.changes += 1

    def stop(self, slot: int) -> None:
        """The request runs no more; what it holds it keeps for the steps that are out."""
        self.decoding[slot] = False
        self._follow(slot, False)
        self.changes += 1

    def vacate(self, slot: int) -> None:
        self.backgrounds -= int(self.background[slot])
        for flags in (self.live, self.edited, self.scored, self.background):
            flags[slot] = False
        self.owners[slot] = None
        self.free.append(slot)

    def told(self, slots: Index, samples: Flags, logprobs: Logprobs | None) -> dict[int, TokenLogprobs]:
        """By slot, of those of a step that sample and whose tokens come with them."""
        if logprobs is None:
            return {}
        rows = (self.scored[slots] & samples).nonzero()[0].tolist()
        owners = [(row, self.owners[slots[row]]) for row in rows]
        return {owner.slot: logprobs.of(row, owner.sampling.logprobs) for row, owner in owners}

    def grow(self, slots: Index, blocks: Sequence[int]) -> None:
        """One more block for each of these."""
        self.tables[slots, self.room[slots] // self.block_size] = blocks
        self.room[slots] += self.block_size

    def blocks(self, slot: int) -> list[int]:
        """The blocks that the slot's request holds, in order."""
        held: list[int] = self.tables[slot, : self.room[slot] // self.block_size].tolist()
        return held

    def known_tokens(self, slot: int, start: int = 0, end: int | None = None) -> list[int]:
        """Known tokens [start, end), to the last one by default."""
        tokens: list[int] = self.tokens[slot, start : self.known[slot] if end is None else end].tolist()
        return tokens
