"""How much a test tries: all of it in `make test-all`, and a part in `make test`."""

from __future__ import annotations

from hypothesis import settings

_ALL = 100
"""Examples of a property test that says no number, in a thorough run: Hypothesis' own default."""


def thorough() -> bool:
    return settings().max_examples >= _ALL


def examples(number: int) -> int:
    """Of so many in a thorough run, those of this run."""
    return max(1, number * settings().max_examples // _ALL)
