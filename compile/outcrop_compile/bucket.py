"""The static shapes of a step: what is compiled, planned for and run."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class StepKind(enum.StrEnum):
    PREFILL = "prefill"
    DECODE = "decode"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class Bucket:
    """One compiled shape: rows x width tokens, each row reading up to `blocks` KV blocks."""

    kind: StepKind
    rows: int
    width: int
    blocks: int
