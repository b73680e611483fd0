"""AI21 Labs' Jamba native body. See "AI21 Labs Jamba models" in the Amazon Bedrock user guide."""

from __future__ import annotations

from outcrop.api.bedrock_runtime.families.chat_body import chat_invocation
from outcrop.api.bedrock_runtime.families.family import Invocation, ShapedFamily
from outcrop.api.bedrock_runtime.prompt_source import Target

_DEFAULT_MAX_TOKENS = 4096


class Jamba(ShapedFamily):
    """A chat completion like OpenAI's; `documents` and more than one choice are refused."""

    def invocation(self, body: bytes, target: Target, priority: int) -> Invocation:
        return chat_invocation(body, target, priority, default_max_tokens=_DEFAULT_MAX_TOKENS)
