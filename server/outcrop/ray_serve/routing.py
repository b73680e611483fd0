"""Which replica a request goes to: Ray's interface to `outcrop.engine.router`."""

from __future__ import annotations

import asyncio
import functools

from ray.serve.request_router import PendingRequest, ReplicaID, ReplicaResult, RequestRouter, RunningReplica

from outcrop.engine.messages import GenerationRequest
from outcrop.engine.prefix_keys import prefix_keys
from outcrop.engine.router import Router, Ticket, choose_for

_MOST_REPLICAS = 1024
"""Of one model at once."""


class PrefixRouter(RequestRouter):
    """Sends a generation where the beginning of its prompt is cached, or where fewest tokens are in flight.

    Ray makes one for each handle, so one for each replica of the API, and calls it on one event loop, by the
    names of its base class. Each knows of its own requests; of the others' it hears by what Ray tells it of
    full queues.
    """

    def initialize_state(self, block_size: int) -> None:
        """What `request_router_kwargs` says. block_size: tokens that the engines' prefix caches keep
        together, 0 if they have none."""
        self._block_size = block_size
        self._router = Router(_MOST_REPLICAS, block_size)
        self._free = list(range(_MOST_REPLICAS - 1, -1, -1))
        self._numbers: dict[ReplicaID, int] = {}
        self._tickets: dict[str, Ticket] = {}

    # -- replicas ----------------------------------------------------------------------------------

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Those that there are now, of which the drained ones get nothing."""
        usable = {each.replica_id: each for each in replicas if not each.routing_stats.get("drained")}
        for replica_id in self._numbers.keys() - usable.keys():
            self._forget(replica_id)
        for replica_id in usable.keys() - self._numbers.keys():
            number = self._numbers[replica_id] = self._free.pop()
            self._router.enter(number, usable[replica_id].replica_metadata["kv_blocks"])
        super().update_replicas(replicas)

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """Known before the next `update_replicas`."""
        super().on_replica_actor_died(replica_id)
        self._forget(replica_id)

    def _forget(self, replica_id: ReplicaID) -> None:
        if (number := self._numbers.pop(replica_id, None)) is not None:
            self._router.leave(number)
            self._free.append(number)

    # -- requests ----------------------------------------------------------------------------------

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The replica that a request is for, then the others: if that one's queue is full Ray takes the one
        with the shortest. Called again for a request that was refused."""
        if pending_request is None or (chosen := self._send(pending_request)) is None:
            return [candidate_replicas]
        pending_request.future.add_done_callback(functools.partial(self._settled, pending_request))
        first = [each for each in candidate_replicas if self._numbers.get(each.replica_id) == chosen]
        rest = [each for each in candidate_replicas if each.replica_id in self._numbers and each not in first]
        return [first, rest]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: ReplicaResult
    ) -> None:
        """A replica has taken a request, which need not be the one that it was for."""
        ticket, number = self._tickets.get(_name(pending_request)), self._numbers.get(replica_id)
        if ticket is not None and number is not None and ticket.replica != number:
            self._send(pending_request, number)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """It has left its replica, however it ended."""
        self._release(internal_request_id)

    def _send(self, pending: PendingRequest, only: int | None = None) -> int | None:
        """Note a generation as on its way to a replica, wherever it was before; the number of that replica,
        None if there is none, or if something else than a generation is asked for."""
        self._release(_name(pending))
        if not (pending.args and isinstance(request := pending.args[0], GenerationRequest)):
            return None
        size = self._block_size
        keys = prefix_keys(request.prompt, request.cache_salt, size) if size else ()
        among = None if only is None else (only,)
        ticket = choose_for(self._router, request, len(request.resumed), keys, among)
        if ticket is None:
            return None
        self._tickets[_name(pending)] = ticket
        return ticket.replica

    def _settled(self, pending: PendingRequest, future: asyncio.Future[RunningReplica]) -> None:
        """A request has a replica, or its client went away before."""
        if future.cancelled():
            self._release(_name(pending))

    def _release(self, name: str) -> None:
        if (ticket := self._tickets.pop(name, None)) is not None:
            self._router.release(ticket)


def _name(pending: PendingRequest) -> str:
    name: str = pending.metadata.internal_request_id
    return name
