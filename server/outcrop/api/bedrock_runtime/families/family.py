"""What every model family does with InvokeModel's bodies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from outcrop.api import errors
from outcrop.api.anthropic.messages_request import MAX_STOPS
from outcrop.api.bedrock_runtime.prompt_source import Target
from outcrop.api.bedrock_runtime.service_tier import priority_of
from outcrop.api.errors import ApiError
from outcrop.api.field_error import FieldError
from outcrop.api.growing_answer import GrowingAnswer
from outcrop.api.inference import GenerationCall, Prompt

Unit = Annotated[float, Meta(ge=0, le=1)]
Stops = Annotated[list[Annotated[str, Meta(min_length=1, max_length=1024)]], Meta(max_length=MAX_STOPS)]


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a native body asks for. answer: what the deltas of its answer grow into. count: makes the prompt
    to be counted, however long; slow, for a thread."""

    call: GenerationCall
    answer: GrowingAnswer
    count: Callable[[], Prompt]


class Family(ABC):
    """Models that share a native body. streams: whether they have InvokeModelWithResponseStream."""

    streams = True

    @abstractmethod
    def parse(self, body: bytes, target: Target, tier: str | None = None) -> Invocation:
        """tier: the service tier. Raises ValidationException, naming the member of the body."""


class ShapedFamily(Family):
    """A family whose body is decoded into a shape of its own."""

    def parse(self, body: bytes, target: Target, tier: str | None = None) -> Invocation:
        try:
            return self.invocation(body, target, priority_of(tier))
        except FieldError as error:
            raise refuse(error) from None

    @abstractmethod
    def invocation(self, body: bytes, target: Target, priority: int) -> Invocation:
        """As `parse`. Raises FieldError."""


def refuse(error: FieldError) -> ApiError:
    """A member that is not as it must be, in the service's words for native bodies."""
    *parents, name = error.steps or [""]
    if not name:
        return errors.malformed_input([error.problem.rstrip(".")])
    if error.fault == "unknown":
        return errors.malformed_input([f"{_pointer(parents)}: extraneous key [{name}] is not permitted"])
    if error.fault == "missing":
        return errors.malformed_input([f"{_pointer(parents)}: required key [{name}] not found"])
    return errors.malformed_input([f"{_pointer([*parents, name])}: {error.problem.rstrip('.')}"])


def _pointer(steps: list[str]) -> str:
    return "/".join(("#", *steps))
