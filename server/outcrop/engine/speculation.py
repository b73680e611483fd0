"""Guesses at the tokens to come, which one step verifies: several tokens of an answer for one reading of the
weights.

A guess is accepted where the model, asked at that position with that position's own draw, chooses the same
token. So an answer is, token for token, what it would have been without guesses, greedy or not; and since a
guess is certain of itself, no rejection sampler would accept it more often.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

I32 = npt.NDArray[np.int32]


class Drafter(Protocol):
    def propose(self, tokens: I32, count: int) -> I32:
        """Up to `count` >= 1 guesses at what follows `tokens`, [K] prompt and output of one request."""


@dataclass(frozen=True, slots=True)
class NgramDrafter:
    """Guesses that what followed the last few tokens before follows them again, as it does in answers that
    quote their prompt (code edited, documents summarised, JSON with repeated keys).

    Of all earlier places, the latest among those that agree with the most of the last `longest` tokens; none
    where fewer than `shortest` agree.
    """

    longest: int = 4
    shortest: int = 2

    def propose(self, tokens: I32, count: int) -> I32:
        ends = np.flatnonzero(tokens[:-1] == tokens[-1])
        found = ends[:0]
        for length in range(1, self.longest + 1):
            if length >= self.shortest:
                if not len(ends):
                    break
                found = ends
            if length < len(tokens):
                # An earlier place needs as many tokens before it as are compared.
                ends = ends[ends >= length]
                ends = ends[tokens[ends - length] == tokens[-1 - length]]
        if not len(found):
            return tokens[:0]
        after = int(found[-1]) + 1
        return tokens[after : after + count]


def accepted(chosen: I32, drafts: I32, counts: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """How many of each row's guesses are right, up to the first that is not: [R].

    chosen [R, Q]: the tokens that the model chose after each of a row's Q tokens. drafts [R, Q - 1]: the
    guesses at the first Q - 1 of them, of which row r has counts[r].
    """
    wrong = (chosen[:, :-1] != drafts) | (np.arange(drafts.shape[1]) >= counts[:, None])
    # With one more column that is always wrong, the first wrong one is how many are right.
    right: npt.NDArray[np.intp] = np.pad(wrong, ((0, 0), (0, 1)), constant_values=True).argmax(axis=1)
    return right
