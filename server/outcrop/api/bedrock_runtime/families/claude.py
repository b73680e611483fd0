"""Claude's native body: Anthropic's Messages, with the version in the body and the model in the path.

See "Anthropic Claude Messages API" in the Amazon Bedrock user guide. Any version is taken: SDKs send newer
ones than the `bedrock-2023-05-31` that the guide names.
"""

from __future__ import annotations

from outcrop.api.anthropic.messages import Messages
from outcrop.api.anthropic.messages_request import DECODER
from outcrop.api.bedrock_runtime.families.family import Invocation, ShapedFamily, refuse
from outcrop.api.bedrock_runtime.prompt_source import Target
from outcrop.api.field_error import FieldError, decode


class Claude(ShapedFamily):
    """The stream's events and their order are those of Anthropic's own API."""

    def invocation(self, body: bytes, target: Target, priority: int) -> Invocation:
        request = decode(body, DECODER)
        if request.anthropic_version is None:
            raise FieldError("anthropic_version", "This parameter is required.", "missing")
        for name, given in (("model", request.model), ("stream", request.stream)):
            if given is not None:
                raise FieldError(name, "The path says it.", "unknown")
        messages = Messages.of(request, target.model, refuse)
        answer = messages.answer(target.identifier, infix="bdrk_")
        return Invocation(messages.call(priority), answer, messages.chat.prepare_unbounded)
