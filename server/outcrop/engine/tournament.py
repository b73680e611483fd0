"""The least of many numbers that keep changing."""

from __future__ import annotations


class Tournament:
    """Numbers by index, and the index of the least one, the first of several: known at once, and kept up to
    date in a step a level of a binary tree of winners."""

    def __init__(self, count: int, value: float) -> None:
        """count: numbers, at least one, all `value` at first."""
        self._values: list[float] = [value] * count
        self._values.append(float("inf"))  # of the leaves that are too many
        self._size = 1 << (count - 1).bit_length()
        self._winners = [0] * self._size + [min(index, count) for index in range(self._size)]
        for node in range(self._size - 1, 0, -1):
            self._winners[node] = self._better(node)

    def __getitem__(self, index: int) -> float:
        return self._values[index]

    @property
    def least(self) -> int:
        return self._winners[1]

    def set(self, index: int, value: float) -> None:
        self._values[index] = value
        winners, node = self._winners, (self._size + index) >> 1
        while node:
            winner = self._better(node)
            if winner == winners[node] != index:
                return  # nothing has changed for those above
            winners[node] = winner
            node >>= 1

    def _better(self, node: int) -> int:
        left, right = self._winners[2 * node], self._winners[2 * node + 1]
        return left if self._values[left] <= self._values[right] else right
