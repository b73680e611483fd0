"""What a router believes to be in the prefix caches of its replicas."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence

_NOBODY: tuple[int, ...] = ()


class Holdings:
    """For each replica the keys (`prefix_keys`) of the blocks that it was given to compute, as many as it has
    room for, least recently used first: its own cache evicts in about that order.

    A key is promised when a request is sent to a replica, and computed once the replica has begun with it.
    Whoever holds a key also holds those before it in its chain: a chain is used from its end to its
    beginning, so that its end is the first to be forgotten.
    """

    def __init__(self, replicas: int) -> None:
        self._blocks: list[OrderedDict[int, bool]] = [OrderedDict() for _ in range(replicas)]  # computed?
        self._room = [0] * replicas
        self._holders: dict[int, tuple[int, ...]] = {}

    def set_room(self, replica: int, blocks: int) -> None:
        """How many blocks a replica can hold."""
        self._room[replica] = blocks
        self._shrink(replica, blocks)

    def count(self, replica: int) -> int:
        """Blocks that a replica holds."""
        return len(self._blocks[replica])

    def holders(self, key: int) -> tuple[int, ...]:
        """The replicas that hold a key."""
        return self._holders.get(key, _NOBODY)

    def depth(self, keys: Sequence[int]) -> int:
        """How many keys of a chain, from its beginning, anybody holds."""
        return bisect_left(keys, True, key=lambda key: key not in self._holders)

    def held(self, replica: int, keys: Sequence[int]) -> tuple[int, int]:
        """How many keys of a chain, from its beginning, a replica holds, and has computed."""
        held = self._blocks[replica]
        count = bisect_left(keys, True, key=lambda key: key not in held)
        return count, bisect_left(keys, True, hi=count, key=lambda key: not held[key])

    def promise(self, replica: int, keys: Sequence[int]) -> None:
        """A replica is about to compute, or to use, the blocks of a chain."""
        self._use(replica, keys, computed=False)

    def begun(self, replica: int, keys: Sequence[int]) -> None:
        """What was promised of a replica is in its steps, as far as it is not forgotten yet."""
        held = self._blocks[replica]
        for key in keys:
            if key not in held:
                return
            held[key] = True

    def compute(self, replica: int, keys: Sequence[int]) -> None:
        """A replica has computed, or used, all blocks of a chain."""
        self._use(replica, keys, computed=True)

    def forget(self, replica: int, blocks: int) -> None:
        """A replica turns out to hold so many blocks less: those that it used least recently."""
        self._shrink(replica, max(0, len(self._blocks[replica]) - blocks))

    def clear(self, replica: int) -> None:
        self._shrink(replica, 0)

    def _use(self, replica: int, keys: Sequence[int], computed: bool) -> None:
        held, holders = self._blocks[replica], self._holders
        for key in reversed(keys):
            if key in held:
                held.move_to_end(key)
                if computed:
                    held[key] = True
            else:
                held[key] = computed
                holders[key] = (*holders.get(key, _NOBODY), replica)
        self._shrink(replica, self._room[replica])

    def _shrink(self, replica: int, blocks: int) -> None:
        held, holders = self._blocks[replica], self._holders
        while len(held) > blocks:
            key, _ = held.popitem(last=False)
            left = tuple(each for each in holders[key] if each != replica)
            if left:
                holders[key] = left
            else:
                del holders[key]
