"""The turns of a conversation: its messages, those in a row by one role taken together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from outcrop.api.bedrock_runtime.content import ContentBlock, Message, ToolResultBlock, ToolUseBlock
from outcrop.api.shapes import Steps


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side said. index: of the turn's first message in the request. blocks: each with its path."""

    role: str
    index: int
    blocks: list[tuple[Steps, ContentBlock]] = field(default_factory=list)

    def calls(self) -> Iterator[ToolUseBlock]:
        return (block.tool_use for _, block in self.blocks if block.tool_use is not None)

    def results(self) -> Iterator[tuple[Steps, ToolResultBlock]]:
        return (
            ((*path, "toolResult"), block.tool_result)
            for path, block in self.blocks
            if block.tool_result is not None
        )


def turns_of(messages: Sequence[Message], *, merge: bool) -> list[Turn]:
    """The turns of checked messages. merge: messages in a row by one role are one turn, as most models want
    it; without it, each is a turn of its own."""
    turns: list[Turn] = []
    for index, message in enumerate(messages):
        assert message.role is not None
        if not (merge and turns and turns[-1].role == message.role):
            turns.append(Turn(message.role, index))
        path = ("messages", index, "content")
        turns[-1].blocks.extend(((*path, at), block) for at, block in enumerate(message.content or ()))
    return turns
