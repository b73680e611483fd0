"""What the service's model does not say about requests: the rules of a conversation, and what a text model
of this server refuses. Everything else about them is read from the model.

Members are known by the shape that has them and their name there, wherever that shape is used; `[]` is a
list's element, `{key}` and `{value}` are a map's.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from botocore.model import OperationModel

MODEL = "meta.llama3-8b-instruct-v1:0"
Key = tuple[str, str]


def blob(text: str) -> str:
    """As a blob travels within JSON."""
    return base64.b64encode(text.encode()).decode()


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks or ({"text": "Hi"},))}


def assistant(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks or ({"text": "Hello"},))}


def native(text: str = "Hi") -> str:
    """A Llama model's own body."""
    return json.dumps({"prompt": text, "max_gen_len": 4, "temperature": 0})


NATIVE = native()
_GUARDRAIL = {"guardrailIdentifier": "abc", "guardrailVersion": "1"}
_SHORT = {"maxTokens": 4, "temperature": 0}


def conversation(operation: OperationModel, fields: dict[str, Any]) -> dict[str, Any]:
    """A request of this operation for a conversation with these fields of Converse."""
    fields = {"messages": [user()]} | fields
    if operation.name == "CountTokens":
        return {"modelId": MODEL, "input": {"converse": fields}}
    return {"modelId": MODEL, "inferenceConfig": _SHORT} | fields


def request(operation: OperationModel, text: str = "Hi") -> dict[str, Any]:
    """A valid request, short to answer. text: what it says to the model, if to any."""
    match operation.name:
        case "Converse" | "ConverseStream" | "CountTokens":
            return conversation(operation, {"messages": [user({"text": text})]})
        case "InvokeModel" | "InvokeModelWithResponseStream":
            return {"modelId": MODEL, "body": native(text)}
        case "GetFoundationModel":
            return {"modelIdentifier": MODEL}
        case _:
            return {}


MODEL_MEMBER = {
    "Converse": "modelId",
    "ConverseStream": "modelId",
    "CountTokens": "modelId",
    "InvokeModel": "modelId",
    "InvokeModelWithResponseStream": "modelId",
    "GetFoundationModel": "modelIdentifier",
}
"""The member that names the model, of the operations that have one."""


REFUSED: dict[Key, str] = {
    ("ContentBlock", "image"): "doesn't support the image content block",
    ("ContentBlock", "document"): "doesn't support the document content block",
    ("ContentBlock", "video"): "doesn't support the video content block",
    ("ContentBlock", "audio"): "doesn't support the audio content block",
    ("ContentBlock", "toolUse"): "toolConfig field must be defined",
    ("ContentBlock", "toolResult"): "toolConfig field must be defined",
    ("ContentBlock", "guardContent"): "doesn't support the guardContent field",
    ("ContentBlock", "reasoningContent"): "doesn't support the reasoningContent field",
    ("ContentBlock", "citationsContent"): "doesn't support the citationsContent field",
    ("ContentBlock", "searchResult"): "doesn't support the searchResult field",
    ("ContentBlock", "toolAddition"): "doesn't support the toolAddition field",
    ("ContentBlock", "toolRemoval"): "doesn't support the toolRemoval field",
    ("SystemContentBlock", "guardContent"): "doesn't support the guardContent field",
    ("ConverseRequest", "toolConfig"): "doesn't support tool use",
    ("ConverseStreamRequest", "toolConfig"): "doesn't support tool use in streaming mode",
    ("ConverseRequest", "guardrailConfig"): "doesn't support the guardrailConfig field",
    ("ConverseStreamRequest", "guardrailConfig"): "doesn't support the guardrailConfig field",
    ("ConverseRequest", "promptVariables"): "doesn't support the promptVariables field",
    ("ConverseStreamRequest", "promptVariables"): "doesn't support the promptVariables field",
    ("OutputConfig", "textFormat"): r"doesn't support the outputConfig\.textFormat field",
    ("OutputConfig", "effort"): r"doesn't support the outputConfig\.effort field",
    ("InvokeModelRequest", "guardrailIdentifier"): "doesn't support the guardrailIdentifier field",
    ("InvokeModelRequest", "guardrailVersion"): "doesn't support the guardrailVersion field",
    ("InvokeModelWithResponseStreamRequest", "guardrailIdentifier"): "the guardrailIdentifier field",
    ("InvokeModelWithResponseStreamRequest", "guardrailVersion"): "the guardrailVersion field",
}
"""Members that are refused whole, with the words. What is inside them is not looked into."""

_UNKNOWN_MODEL = "The provided model identifier is invalid"

SAYS: dict[Key, str] = {
    ("ConverseRequest", "modelId"): _UNKNOWN_MODEL,
    ("ConverseStreamRequest", "modelId"): _UNKNOWN_MODEL,
    ("CountTokensRequest", "modelId"): _UNKNOWN_MODEL,
    ("InvokeModelRequest", "modelId"): _UNKNOWN_MODEL,
    ("InvokeModelWithResponseStreamRequest", "modelId"): _UNKNOWN_MODEL,
    ("GetFoundationModelRequest", "modelIdentifier"): _UNKNOWN_MODEL,
    ("RequestMetadata", "{key}"): "requestMetadata",
    ("RequestMetadata", "{value}"): "requestMetadata",
}
"""The words for members whose errors the service does not word by their path."""

EXAMPLES: dict[Key, list[Any]] = {
    ("ConverseRequest", "modelId"): [MODEL, f"us.{MODEL}"],
    ("ConverseStreamRequest", "modelId"): [MODEL, f"us.{MODEL}"],
    ("CountTokensRequest", "modelId"): [MODEL],
    ("InvokeModelRequest", "modelId"): [MODEL],
    ("InvokeModelWithResponseStreamRequest", "modelId"): [MODEL],
    ("GetFoundationModelRequest", "modelIdentifier"): [MODEL],
    ("ListFoundationModelsRequest", "byProvider"): ["Meta", "a" * 63],
    ("InvokeModelRequest", "body"): [NATIVE],
    ("InvokeModelWithResponseStreamRequest", "body"): [NATIVE],
    ("InvokeModelRequest", "contentType"): ["application/json"],
    ("InvokeModelRequest", "accept"): ["application/json", "*/*"],
    ("InvokeModelWithResponseStreamRequest", "contentType"): ["application/json"],
    ("InvokeModelWithResponseStreamRequest", "accept"): ["application/json", "*/*"],
    ("InvokeModelRequest", "requestMetadata"): ['{"team": "a"}'],
    ("InvokeModelWithResponseStreamRequest", "requestMetadata"): ['{"team": "a"}'],
    ("ConverseRequest", "messages"): [[user()], [user(), assistant(), user()]],
    ("ConverseStreamRequest", "messages"): [[user()], [user(), assistant(), user()]],
    ("ConverseTokensRequest", "messages"): [[user()]],
    ("Messages", "[]"): [user()],
    ("Message", "role"): ["user"],
    ("Message", "content"): [[{"text": "Hi"}], [{"text": "Hi"}, {"text": "there"}]],
    ("ContentBlock", "cachePoint"): [{"type": "default"}],
    ("ConverseRequest", "additionalModelRequestFields"): [{}, {"top_k": 5}, {"seed": 3}],
    ("ConverseStreamRequest", "additionalModelRequestFields"): [{}, {"top_k": 5}, {"seed": 3}],
    ("ConverseRequestAdditionalModelResponseFieldPathsList", "[]"): ["/stop_reason", "/" + "a" * 255],
    ("ConverseStreamRequestAdditionalModelResponseFieldPathsList", "[]"): ["/stop_reason"],
    ("ConverseRequest", "guardrailConfig"): [_GUARDRAIL],
    ("ConverseStreamRequest", "guardrailConfig"): [_GUARDRAIL],
    ("ConverseRequest", "promptVariables"): [{"name": {"text": "value"}}],
    ("ConverseStreamRequest", "promptVariables"): [{"name": {"text": "value"}}],
    ("InferenceConfiguration", "maxTokens"): [1, 100],
}
"""Values that fit where the model alone does not tell: what means something, rather than anything."""

PREFERRED = {"ContentBlock": "text", "SystemContentBlock": "text"}
"""Of a union, the member to use where any would do."""

BESIDE: dict[str, dict[str, Any]] = {}
"""Members that a structure needs although the model does not require them."""

PLACES: dict[Key, Callable[[Any], dict[str, Any]]] = {
    ("ContentBlock", "cachePoint"): lambda block: {"messages": [user({"text": "Hi"}, {"cachePoint": block})]},
}
"""Where a member makes sense in a conversation: fields of Converse around it."""
