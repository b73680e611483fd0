"""What a prompt router looks at in a request."""

from __future__ import annotations

from outcrop.api.bedrock_runtime import prompt
from outcrop.api.bedrock_runtime.models import ConverseRequest
from outcrop.api.bedrock_runtime.turns import turns_of
from outcrop.catalog.prompt_router import Demand


def of_conversation(request: ConverseRequest) -> Demand:
    """Of a checked request of Converse."""
    turns = turns_of(request.messages or (), merge=False)
    output = request.output_config
    return Demand(
        text_bytes=prompt.least_bytes(request, turns),
        turns=len(turns),
        tools=request.tool_config is not None,
        structured=output is not None and output.text_format is not None,
        documents=any(block.document is not None for turn in turns for _, block in turn.blocks),
    )


def of_body(body: bytes) -> Demand:
    """Of a native body, whose length alone is looked at."""
    return Demand(text_bytes=len(body))
