"""Several engine processes of one model behind one handle."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from outcrop.engine.abilities import Abilities, common
from outcrop.engine.client import EngineClient, EngineUnavailable
from outcrop.engine.config import EngineConfig
from outcrop.engine.lobby import Lobby
from outcrop.engine.messages import GenerationDelta, GenerationRequest
from outcrop.engine.prefix_keys import prefix_keys
from outcrop.engine.process_client import ProcessClient
from outcrop.engine.router import Router, choose_for
from outcrop.engine.stats import EngineStats, Routing
from outcrop.engine.stream import Stream, follow

logger = logging.getLogger(__name__)

_POLL = 0.05
_CLOSING = "the server is shutting down"


@dataclass(slots=True, eq=False)
class _Replica:
    """version: of the model it serves. retiring: it finishes what it has and gets nothing new."""

    config: EngineConfig
    version: int
    retiring: bool = False
    client: ProcessClient = field(init=False)


class ReplicaSet(EngineClient):
    """Sends each request to one of several replicas, each a supervised process; see Router for which.

    It is ready while one replica is. A replica whose process dies leaves rotation until it is up again, and
    its requests go on at others, from the tokens that they have (see Lobby); one that is given up stays out,
    and the set is given up with the last.

    `update` replaces the replicas by others while requests run. A request that has tokens ends with the
    version that it began with: if all replicas of that are lost it waits for one, as long as one may return.
    """

    def __init__(
        self,
        configs: Sequence[EngineConfig],
        *,
        block_size: int = 0,
        step_timeout: float = 120.0,
        on_progress: Callable[[str, float], None] = lambda stage, fraction: None,
        name: str = "model",
    ) -> None:
        """configs: one of each replica. block_size: of the replicas' prefix caches; 0 if they have none.
        on_progress: how starting of the first replica goes. name: in the log."""
        self._name = name
        self._step_timeout = step_timeout
        self._block_size = block_size if len(configs) > 1 else 0  # where nothing is chosen no key is needed
        self._router = Router(len(configs), block_size)
        self._lobby = Lobby(self._place, self)
        self._version = 0
        self._slots = [self._make(config) for config in configs[1:]]
        self._slots.insert(0, self._make(configs[0], on_progress))
        self._retiring: list[_Replica] = []
        self._updating = asyncio.Lock()
        self._starting: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None
        self._gone = asyncio.Event()
        self._closing = False

    # -- EngineClient ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when the first replica is ready, which shows that the settings are right and leaves packed
        weights for the others; those start then, side by side."""
        if self._starting is None:
            self._first = asyncio.get_running_loop().create_future()
            self._starting = asyncio.create_task(self._start(self._first))
        assert self._first is not None
        await asyncio.shield(self._first)

    async def close(self) -> None:
        self._closing = True
        for slot in range(len(self._slots)):
            self._router.leave(slot)
        clients = [replica.client for replica in (*self._slots, *self._retiring)]
        await asyncio.gather(*(client.close() for client in clients))
        if self._starting is not None:
            await self._starting  # whatever it waited for has ended
        for client in clients:
            client.dispatcher.release()
        self._lobby.fail_all(_CLOSING)

    @property
    def ready(self) -> bool:
        return self._router.in_rotation > 0

    @property
    def drained(self) -> str:
        if not self._gone.is_set():
            return ""
        return next((found for each in self._slots if (found := each.client.drained)), "")

    @property
    def max_model_len(self) -> int:
        """The least of the replicas', which differ only during an update."""
        return min(
            (each.client.max_model_len for each in self._slots if each.client.max_model_len), default=0
        )

    @property
    def abilities(self) -> Abilities:
        """What every replica that has started can do; they differ only during an update."""
        return common(each.client.abilities for each in self._slots if each.client.max_model_len)

    @property
    def stats(self) -> EngineStats:
        return EngineStats.sum(each.client.stats for each in self._slots)

    @property
    def restarts(self) -> int:
        return sum(each.client.restarts for each in self._slots)

    @property
    def replicas(self) -> Sequence[ProcessClient]:
        return [each.client for each in self._slots]

    @property
    def routing(self) -> Routing:
        return self._router.routing

    @property
    def configs(self) -> list[EngineConfig]:
        """What each replica was started with."""
        return [each.config for each in self._slots]

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        if self._starting is None or self._gone.is_set():
            raise EngineUnavailable(self._reason or "the engine is not running")
        return follow(Stream(request, perf_counter()), self._lobby.enter)

    async def given_up(self) -> str:
        """Waits until no replica is left that runs or will; the reason."""
        await self._gone.wait()
        return self._reason

    # -- update ----------------------------------------------------------------------------------

    async def update(self, configs: Sequence[EngineConfig], *, in_place: bool = False) -> None:
        """Replace every replica, one after another; requests are served meanwhile and none fails.

        The new engine is started beside the old one, gets its new requests once it is ready, and the old one
        ends with the last that it had. in_place: where both have no room at once (NeuronCores belong to one
        process), the old one ends before the new one is started, and the other replicas serve meanwhile.
        Raises EngineUnavailable where a new engine does not start: the rest of the replicas, this one too,
        stay with what they had.
        """
        if len(configs) != len(self._slots):
            raise ValueError(f"{len(configs)} configurations for {len(self._slots)} replicas")
        async with self._updating:
            self._version += 1
            for slot, config in enumerate(configs):
                await (self._replace_in_place if in_place else self._replace)(slot, config)
                logger.info("%s: replica %d of %d is updated", self._name, slot + 1, len(configs))

    async def _replace(self, slot: int, config: EngineConfig) -> None:
        old, new = self._slots[slot], self._make(config)
        try:
            await new.client.start()
        except BaseException:
            await new.client.close()
            raise
        old.retiring = True
        self._retiring.append(old)
        self._slots[slot] = new
        self._changed(new)
        self._lobby.resume()
        await self._end(old)
        self._retiring.remove(old)

    async def _replace_in_place(self, slot: int, config: EngineConfig) -> None:
        old = self._slots[slot]
        if old.client.ready and self._router.in_rotation == 1:
            raise EngineUnavailable(
                f"replica {slot + 1} is the only one that serves, and the new engine cannot start beside it: "
                "give the new one cores that are free, or the model another replica"
            )
        old.retiring = True
        self._router.leave(slot)
        await self._end(old)
        new = self._slots[slot] = self._make(config)
        try:
            await new.client.start()
        except EngineUnavailable:
            await new.client.close()
            back = self._slots[slot] = self._make(old.config)
            back.version = old.version
            with contextlib.suppress(EngineUnavailable):  # what is told is why the new one did not start
                await back.client.start()
            raise

    async def _end(self, old: _Replica) -> None:
        """Let a replica finish what it has."""
        while old.client.dispatcher.busy or self._returns_to(old):
            await asyncio.sleep(_POLL)
        await old.client.close()

    def _returns_to(self, old: _Replica) -> bool:
        """Whether a stream waits for a replica that is being restarted."""
        waiting = (each for each in self._lobby if each.tokens and each.version == old.version)
        return not old.client.over and any(waiting)

    # -- replicas come and go --------------------------------------------------------------------

    def _make(
        self, config: EngineConfig, on_progress: Callable[[str, float], None] = lambda stage, fraction: None
    ) -> _Replica:
        replica = _Replica(config, self._version)
        replica.client = ProcessClient(
            config,
            step_timeout=self._step_timeout,
            on_progress=on_progress,
            lobby=self._lobby,
            on_change=lambda: self._changed(replica),
        )
        return replica

    async def _start(self, first: asyncio.Future[None]) -> None:
        try:
            await self._slots[0].client.start()
        except EngineUnavailable as error:
            self._gone.set()  # as a server with one replica ends where that cannot be had
            first.set_exception(error)
            first.exception()  # whoever waits is told; if nobody does any more, that is no news
            return
        first.set_result(None)
        if self._closing:
            return
        others = self._slots[1:]
        outcomes = await asyncio.gather(*(each.client.start() for each in others), return_exceptions=True)
        for number, outcome in enumerate(outcomes, 2):
            if outcome is not None:
                logger.error("%s: replica %d does not start: %s", self._name, number, outcome)

    def _changed(self, replica: _Replica) -> None:
        """A replica is up, or no longer. (A new one of an update has no slot before it is up.)"""
        if replica in self._slots and not replica.retiring:
            slot, client, before = self._slots.index(replica), replica.client, self._router.in_rotation
            if client.ready:
                self._router.enter(slot, client.num_blocks)
            else:
                self._router.leave(slot)
            if len(self._slots) > 1 and self._router.in_rotation != before:
                logger.info(
                    "%s: replica %d is %s, %d of %d are ready", self._name, slot + 1,
                    "ready" if client.ready else "down", self._router.in_rotation, len(self._slots),
                )  # fmt: skip
        if replica.client.over:
            if all(each.client.over for each in self._slots):
                self._gone.set()
                self._lobby.fail_all(self._reason)
            else:
                self._lobby.resume()

    @property
    def _reason(self) -> str:
        return next((found for each in self._slots if (found := each.client.reason)), "")

    # -- streams ---------------------------------------------------------------------------------

    def _place(self, stream: Stream) -> bool:
        """Lobby's `place`."""
        among = None
        if stream.tokens and (able := self._able(stream.version)) and not self._uniform:
            up = [each for each in able if each.client.ready]
            among = [slot for slot, each in enumerate(self._slots) if each in up and not each.retiring]
            if not among:
                return bool(up) and up[0].client.dispatcher.take(stream)
        ticket = choose_for(self._router, stream.request, len(stream.tokens), self._keys(stream), among)
        if ticket is None:
            return False
        if stream.ticket is not None and stream.ticket.replica != ticket.replica:
            self._router.routing.moved += 1
        replica = self._slots[ticket.replica]
        stream.ticket, stream.version = ticket, replica.version
        return replica.client.dispatcher.take(stream)

    @property
    def _uniform(self) -> bool:
        """Whether there is but one version."""
        return len({each.version for each in (*self._slots, *self._retiring)}) == 1

    def _able(self, version: int) -> list[_Replica]:
        """The replicas of a version that run or may yet."""
        found = (*self._slots, *self._retiring)
        return [each for each in found if each.version == version and not each.client.over]

    def _keys(self, stream: Stream, known: Sequence[int] = ()) -> list[int]:
        if not self._block_size:
            return []
        tokens = [*stream.request.prompt, *stream.tokens] if stream.tokens else stream.request.prompt
        return prefix_keys(tokens, stream.request.cache_salt, self._block_size, known)

    def stream_started(self, stream: Stream) -> None:
        if stream.ticket is not None:
            self._router.started(stream.ticket, stream.cached)

    def stream_ended(self, stream: Stream) -> None:
        if (ticket := stream.ticket) is not None:
            generated = stream.end.generated if isinstance(stream.end, GenerationDelta) else 0
            self._router.release(ticket, generated, self._keys(stream, ticket.keys))
