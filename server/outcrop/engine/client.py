"""The API's handle on an engine: the only engine module that `outcrop.api` may import."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence

from outcrop.engine.abilities import ABILITIES, Abilities, lacking
from outcrop.engine.messages import (
    BACKGROUND,
    FinishReason,
    GenerationDelta,
    GenerationRequest,
    SamplingParams,
    TokenLogprobs,
)
from outcrop.engine.stats import EngineStats, Routing

__all__ = [
    "BACKGROUND",
    "Abilities",
    "EngineClient",
    "EngineStats",
    "EngineUnavailable",
    "FinishReason",
    "GenerationDelta",
    "GenerationRequest",
    "ModelFailure",
    "Routing",
    "SamplingParams",
    "TokenLogprobs",
    "lacking",
]


class EngineUnavailable(Exception):
    """The engine is not there to answer (starting, draining, or beyond its restart budget)."""


class ModelFailure(Exception):
    """The model failed on this request: NaN or Inf in its row, a grammar that it could not be held to, or
    present in two engine crashes."""


class EngineClient(ABC):
    """One model's engine. Implementations: `ProcessClient` (its own process, supervised), `ReplicaSet` (some
    of those), `OnDemandEngine` (another one, once somebody asks for it) and `InProcessClient` (a thread of
    this process, for tests and notebooks)."""

    @abstractmethod
    async def start(self) -> None:
        """Start the engine; returns when it is ready. Raises EngineUnavailable with the reason."""

    @abstractmethod
    async def close(self) -> None:
        """Stop the engine and release its device. Idempotent."""

    def wake(self) -> bool:
        """Somebody asks for it: one that starts on demand begins to, if it has not. Whether it is such a one.
        Called from the event loop."""
        return False

    @property
    @abstractmethod
    def ready(self) -> bool:
        """True while requests are served; False while starting, restarting or draining."""

    @property
    def drained(self) -> str:
        """Why the engine is down for good although it once was ready, since its hardware failed, or, where it
        starts on demand, why it did not. Empty while that has not happened."""
        return ""

    @property
    @abstractmethod
    def max_model_len(self) -> int:
        """Tokens, prompt and output together, that one request may occupy. Valid once started."""

    @property
    def abilities(self) -> Abilities:
        """What a request may ask for. Valid once started."""
        return ABILITIES["outcrop"]

    @property
    @abstractmethod
    def stats(self) -> EngineStats:
        """The figures of the engine's latest step frame."""

    @property
    @abstractmethod
    def restarts(self) -> int:
        """How often the engine died and was started again."""

    @property
    def replicas(self) -> Sequence[EngineClient]:
        """The engines that share its requests: itself, where it is one. `stats` and `restarts` are their
        sums, and it is ready while one of them is."""
        return (self,)

    @property
    def routing(self) -> Routing:
        """What decided which replica a request went to; all zero of an engine that is not a set of them."""
        return Routing()

    @abstractmethod
    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        """Stream the deltas of one request, ending with the one whose `finish` is set.

        Closing the generator (`aclose`, or cancelling the task that iterates it) aborts the request and
        frees its KV blocks. The prompt must be shorter than `max_model_len`. Raises EngineUnavailable
        or ModelFailure; an engine restart in between is invisible to the caller.
        """
