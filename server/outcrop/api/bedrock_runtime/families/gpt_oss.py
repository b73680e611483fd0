"""The native body of OpenAI's models on Amazon Bedrock: a chat completion's request and answer. See "OpenAI
models" in the Amazon Bedrock user guide."""

from __future__ import annotations

from outcrop.api.bedrock_runtime.families.chat_body import chat_invocation
from outcrop.api.bedrock_runtime.families.family import Invocation, ShapedFamily
from outcrop.api.bedrock_runtime.prompt_source import Target


class GptOss(ShapedFamily):
    """Each chunk of the stream is a `chat.completion.chunk`."""

    def invocation(self, body: bytes, target: Target, priority: int) -> Invocation:
        return chat_invocation(body, target, priority)
