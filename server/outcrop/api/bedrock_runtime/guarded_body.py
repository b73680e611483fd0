"""Which texts of a native body a guardrail looks at, whatever family's it is.

See "Apply tags to user input to filter content" and "Configure streaming response behavior" in the Amazon
Bedrock user guide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from outcrop.api import errors
from outcrop.api.guardrails.guard import Guard

CONFIG = "amazon-bedrock-guardrailConfig"
"""A member of any family's body."""

_TAG = "amazon-bedrock-guardrails-guardContent_"
_PROMPTS = ("prompt", "inputText", "message")
"""Members that are the prompt, or its last turn."""

_DOCUMENT: msgspec.json.Decoder[Any] = msgspec.json.Decoder()

Piece = tuple[str, bool]
"""A part of a text, and whether it is to be looked at."""


class GuardrailConfig(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """tag_suffix: the end of the tags around what is to be looked at. stream_processing_mode: Converse's."""

    tag_suffix: Annotated[str, Meta(pattern="^[A-Za-z0-9]{1,20}$")] | None = None
    stream_processing_mode: Literal["SYNCHRONOUS", "ASYNCHRONOUS"] | None = None

    @property
    def asynchronous(self) -> bool:
        return self.stream_processing_mode == "ASYNCHRONOUS"


class GuardedBody:
    """A body that a guardrail is to look at. body: what its family is to make of it, without the guardrail's
    member. config: that member."""

    def __init__(self, body: bytes) -> None:
        """Raises ValidationException for a member that is not as it must be; what else is wrong is for the
        family to say."""
        self.body = body
        self.config = GuardrailConfig()
        try:
            self._document = _DOCUMENT.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._document = None
        if isinstance(self._document, dict) and CONFIG in self._document:
            try:
                self.config = msgspec.convert(self._document.pop(CONFIG), GuardrailConfig)
            except msgspec.ValidationError as error:
                raise errors.validation(f"The value at {CONFIG} is invalid: {error}.") from None
            self.body = msgspec.json.encode(self._document)

    def checked(self, guard: Guard) -> bytes:
        """The body that the model is to read: its texts masked, and without tags. Raises InputBlocked."""
        places = list(_places(self._document))
        texts = [self._pieces(holder[key]) for holder, key in places]
        tagged = any(is_tagged for pieces in texts for _, is_tagged in pieces)
        looked_at = [piece for pieces in texts for piece, is_tagged in pieces if is_tagged or not tagged]
        masked = iter(guard.check(looked_at, sum(len(holder[key]) for holder, key in places)))
        for (holder, key), pieces in zip(places, texts, strict=True):
            holder[key] = "".join(
                next(masked) if is_tagged or not tagged else piece for piece, is_tagged in pieces
            )
        return msgspec.json.encode(self._document)

    def _pieces(self, text: str) -> Sequence[Piece]:
        """A text cut at its tags, which are left out."""
        if self.config.tag_suffix is None:
            return [(text, False)]
        tag = _TAG + self.config.tag_suffix
        before, *parts = text.split(f"<{tag}>")
        pieces = [(before, False)]
        for part in parts:
            inside, _, behind = part.partition(f"</{tag}>")
            pieces += ((inside, True), (behind, False))
        return pieces


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """A body's texts, but for system prompts and tools: the object that has each, and its key."""
    if not isinstance(document, dict):
        return
    for name in _PROMPTS:
        if isinstance(document.get(name), str):
            yield document, name
    for name in ("messages", "chat_history"):
        turns = document.get(name)
        for turn in turns if isinstance(turns, list) else ():
            if isinstance(turn, dict) and turn.get("role") not in ("system", "developer", "SYSTEM", "tool"):
                yield from _texts(turn)


def _texts(turn: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    for name in ("content", "message"):
        content = turn.get(name)
        if isinstance(content, str):
            yield turn, name
        for block in content if isinstance(content, list) else ():
            if isinstance(block, dict) and isinstance(block.get("text"), str):
                yield block, "text"
