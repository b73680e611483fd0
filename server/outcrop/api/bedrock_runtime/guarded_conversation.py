"""Which texts of a Converse request a guardrail looks at."""

from __future__ import annotations

from collections.abc import Iterator

from outcrop.api.bedrock_runtime.content import (
    ContentBlock,
    GuardrailConverseContentBlock,
    GuardrailConverseTextBlock,
)
from outcrop.api.bedrock_runtime.models import ConverseRequest
from outcrop.api.guardrails.guard import Guard

Holder = ContentBlock | GuardrailConverseTextBlock
"""What has a text that a guardrail may put another in the place of."""


def check(guard: Guard, request: ConverseRequest) -> None:
    """Mask the request's texts. Raises InputBlocked.

    As "Include a guardrail with the Converse API" in the Amazon Bedrock user guide has it: of messages the
    guardContent blocks, or all texts where there is no such block; of the system prompt guardContent blocks
    alone; of tools, their results and documents nothing.
    """
    system = list(_guarded(part.guard_content for part in request.system or ()))
    blocks = [block for message in request.messages or () for block in message.content or ()]
    holders: list[Holder] = list(_guarded(block.guard_content for block in blocks))
    said = [
        block
        for message in request.messages or ()
        if message.role != "system"
        for block in message.content or ()
        if block.text is not None
    ]
    if not holders:
        holders += said
    holders += system
    everything: list[Holder] = [*said, *_guarded(block.guard_content for block in blocks), *system]
    total = sum(len(holder.text or "") for holder in everything)
    total += sum(len(part.text or "") for part in request.system or ())
    masked = guard.check([holder.text or "" for holder in holders], total)
    for holder, text in zip(holders, masked, strict=True):
        holder.text = text


def _guarded(
    blocks: Iterator[GuardrailConverseContentBlock | None],
) -> Iterator[GuardrailConverseTextBlock]:
    return (block.text for block in blocks if block is not None and block.text is not None)
