"""Which replica of a model a request goes to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field

from outcrop.engine.holdings import Holdings
from outcrop.engine.messages import BACKGROUND, GenerationRequest
from outcrop.engine.stats import Routing
from outcrop.engine.tournament import Tournament

LEAD = 4
"""A replica that holds a prompt's beginning may have so many more tokens in flight, for each token that it
need not compute, than the replica that has the fewest: a token of a prompt costs a step less than one of an
answer does."""
MANY = 32
"""A beginning that more replicas than these hold speaks for none of them: the others will hold it soon."""
SESSIONS = 65_536
"""Sessions whose replica is remembered."""

_SHARE_OF_KV = 4
"""However much it holds, it is not ahead by more than its KV memory's tokens divided by this."""
_ANSWER = 256.0
"""Tokens expected of an answer before there was one."""
_MEMORY = 64
"""Answers that the expected length is a mean of, roughly."""

_TIE = 1 << 24
"""More than the blocks that a replica holds, which decide between those with the same load."""
_OUT = float("inf")
"""The rank of a replica that is out of rotation."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A request on its way to a replica. epoch: of the replica, since which it has not been out of rotation.
    weight: tokens that the request counts for there. keys: of its prompt's blocks; the replica is believed to
    hold the first `held` of them, and to have computed the first `computed`."""

    replica: int
    epoch: int
    weight: int
    background: bool
    keys: Sequence[int]
    held: int
    computed: int


@dataclass(slots=True)
class _Sessions:
    """Which replica had the last request of each of the latest sessions."""

    latest: OrderedDict[Hashable, int] = field(default_factory=OrderedDict)

    def find(self, session: Hashable) -> int | None:
        return None if session is None else self.latest.get(session)

    def note(self, session: Hashable, replica: int) -> None:
        if session is not None:
            self.latest[session] = replica
            self.latest.move_to_end(session)
            if len(self.latest) > SESSIONS:
                self.latest.popitem(last=False)


class Router:
    """Chooses among replicas by numbers alone; it knows no engine, socket or clock.

    A request goes to the replica with the fewest tokens in flight (of prompts what has to be computed, of
    answers what is to be expected), unless another one holds the beginning of its prompt, or had the last
    request of its session, and is not much busier: see LEAD. So no beginning, however popular, overloads a
    replica: when those that hold it are ahead by too much, one more gets it. Of replicas that are equally
    busy the one that holds least is chosen. Requests of the background do not count for those that do not
    wait for them.

    Replicas are numbers from 0; all are out of rotation at first.
    """

    def __init__(self, replicas: int, block_size: int) -> None:
        """block_size: tokens that a key of `prefix_keys` stands for."""
        self.routing = Routing()
        self._block_size = block_size
        # Tokens in flight, without the background and with it; beside each who has least.
        self._loads = ([0] * replicas, [0] * replicas)
        self._ranks = (Tournament(replicas, _OUT), Tournament(replicas, _OUT))
        self._in = [False] * replicas
        self._epochs = [0] * replicas
        self._most_ahead = [0] * replicas
        self._holdings = Holdings(replicas)
        self._sessions = _Sessions()
        self._answer = _ANSWER

    def enter(self, replica: int, blocks: int) -> None:
        """A replica takes requests from now on; it holds nothing yet. blocks: of its KV memory."""
        self.leave(replica)
        self._in[replica] = True
        self._holdings.set_room(replica, blocks)
        self._most_ahead[replica] = blocks * self._block_size // _SHARE_OF_KV
        self._rank(replica)

    def leave(self, replica: int) -> None:
        """A replica takes no more requests, or was lost; tickets for it mean nothing any more."""
        self._in[replica] = False
        self._epochs[replica] += 1
        self._holdings.clear(replica)
        for loads in self._loads:
            loads[replica] = 0
        self._rank(replica)

    @property
    def in_rotation(self) -> int:
        """How many replicas take requests."""
        return sum(self._in)

    def load(self, replica: int) -> int:
        """Tokens in flight at a replica that is in rotation."""
        return self._loads[1][replica]

    def choose(
        self,
        keys: Sequence[int],
        prompt: int,
        limit: int,
        *,
        session: Hashable = None,
        background: bool = False,
        among: Collection[int] | None = None,
    ) -> Ticket | None:
        """Send a request to a replica; None if none is in rotation. keys: of the prompt's blocks. prompt:
        tokens of it. limit: tokens that the answer may have at most. among: the only replicas that may have
        it, each of which is in rotation."""
        ranks, loads = self._ranks[background], self._loads[background]
        least = ranks.least if among is None else min(among, key=ranks.__getitem__)
        if not self._in[least]:
            return None
        floor = loads[least]
        answer = min(limit, int(self._answer))
        replica, depth = (least, 0) if among is not None else self._holder(keys, loads, floor)
        if depth:
            self.routing.prefix += 1
        elif (
            among is None
            and (last := self._sessions.find(session)) is not None
            and self._in[last]
            and loads[last] <= floor + prompt + answer
        ):
            replica = last
            self.routing.session += 1
        else:
            replica = least
            self.routing.load += 1
        self._sessions.note(session, replica)
        held, computed = self._holdings.held(replica, keys)
        weight = max(1, prompt - held * self._block_size + answer)
        ticket = Ticket(replica, self._epochs[replica], weight, background, keys, held, computed)
        self._holdings.promise(replica, keys)
        self._add(ticket, weight)
        return ticket

    def started(self, ticket: Ticket, cached: int) -> None:
        """A replica has begun with a request, and found so many tokens of its prompt in its cache."""
        if self._epochs[ticket.replica] != ticket.epoch or not ticket.keys:
            return
        # The last token of a prompt is always computed, and with it its block.
        if (missing := ticket.computed - cached // self._block_size - 1) > 0:
            self._holdings.forget(ticket.replica, missing)
            self._rank(ticket.replica)
        self._holdings.begun(ticket.replica, ticket.keys[ticket.computed :])

    def release(self, ticket: Ticket, generated: int = 0, more: Sequence[int] = ()) -> None:
        """A request has left its replica. generated: tokens of its answer, if it is complete. more: keys of
        the blocks that the answer filled."""
        if generated:
            self._answer += (generated - self._answer) / _MEMORY
        if self._epochs[ticket.replica] != ticket.epoch:
            return
        if more:
            self._holdings.compute(ticket.replica, [*ticket.keys, *more])
        self._add(ticket, -ticket.weight)

    def _holder(self, keys: Sequence[int], loads: Sequence[int], floor: int) -> tuple[int, int]:
        """The replica that holds most of a chain's beginning among those that are not too busy, and how many
        blocks that are; 0 if none may have it."""
        holdings = self._holdings
        depth = holdings.depth(keys)
        while depth:
            holders = holdings.holders(keys[depth - 1])
            if len(holders) > MANY:
                break
            best = min(holders, key=loads.__getitem__)
            if loads[best] <= floor + min(LEAD * depth * self._block_size, self._most_ahead[best]):
                return best, depth
            # Others may hold a shorter beginning.
            while depth and len(holdings.holders(keys[depth - 1])) == len(holders):
                depth -= 1
        return 0, 0

    def _add(self, ticket: Ticket, tokens: int) -> None:
        for loads in self._loads[ticket.background :]:
            loads[ticket.replica] += tokens
        self._rank(ticket.replica)

    def _rank(self, replica: int) -> None:
        held = self._holdings.count(replica)
        for loads, ranks in zip(self._loads, self._ranks, strict=True):
            ranks.set(replica, loads[replica] * _TIE + held if self._in[replica] else _OUT)


def choose_for(
    router: Router,
    request: GenerationRequest,
    done: int,
    keys: Sequence[int],
    among: Collection[int] | None = None,
) -> Ticket | None:
    """`Router.choose` for a request whose answer has so many tokens already. A session is its tenant's."""
    return router.choose(
        keys,
        len(request.prompt) + done,
        max(1, request.sampling.max_tokens - done),
        session=(request.cache_salt, request.session) if request.session else None,
        background=request.priority <= BACKGROUND,
        among=among,
    )
