"""A step as the scheduler decides it: which tokens of which requests."""

from __future__ import annotations

from dataclasses import dataclass

from outcrop.backends.base import I32
from outcrop.engine.slots import Flags, Index
from outcrop_compile.bucket import Bucket


@dataclass(frozen=True, slots=True)
class ScheduledStep:
    """Row i: tokens [starts[i], ends[i]) of the request in `slots[i]`, and whether the next is sampled; these
    columns are [n], n <= bucket.rows. begun: the rows of a decode step that begin a block. number:
    counts the steps, from 1. drafts: in a verify step, guesses [n, bucket.width - 1] at the tokens after row
    i's first, of which it has ends[i] - starts[i] - 1."""

    number: int
    bucket: Bucket
    slots: Index
    starts: Index
    ends: Index
    samples: Flags
    begun: Index
    drafts: I32 | None = None
