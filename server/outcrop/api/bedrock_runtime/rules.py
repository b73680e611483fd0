"""The rules of a conversation: what a Converse request must satisfy beyond its shape.

Reported in the service's words, the first thing found alone, before any work is done.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from outcrop.api import errors
from outcrop.api.bedrock_runtime.content import (
    ContentBlock,
    Message,
    SystemContentBlock,
    ToolResultBlock,
    ToolResultContentBlock,
)
from outcrop.api.bedrock_runtime.media import DocumentBlock
from outcrop.api.bedrock_runtime.models import (
    ConverseTokensRequest,
    InferenceConfiguration,
    ToolConfiguration,
)
from outcrop.api.bedrock_runtime.turns import Turn
from outcrop.api.errors import ApiError
from outcrop.api.shapes import Steps
from outcrop.api.smithy import dotted
from outcrop.api.stops import MAX_STOP_CHARACTERS

MAX_DOCUMENTS = 5
MAX_DOCUMENT_BYTES = 4_500_000
_DOCUMENT_NAME = re.compile(r"(?:[A-Za-z0-9_\-()\[\]]|\s(?!\s))+")  # the service takes underscores too
_MEDIA = ("image", "video", "audio")
_USER_ONLY = ("document", "toolResult", "searchResult")
_ASSISTANT_ONLY = ("toolUse", "reasoningContent", "citationsContent")
_PLAIN = ("text", "guardContent", "cachePoint")  # all that a system turn may hold


def check_conversation(request: ConverseTokensRequest, turns: Sequence[Turn]) -> None:
    """Check a request whose shape is right. Raises ValidationException."""
    for index, system_block in enumerate(request.system or ()):
        _check_system_block(system_block, ("system", index))
    _check_messages(request.messages or ())
    _check_roles(turns)
    _check_documents(request.messages or ())
    if request.tool_config is not None:
        _check_tool_config(request.tool_config)
    elif any(block.chosen in ("toolUse", "toolResult") for turn in turns for _, block in turn.blocks):
        raise errors.tool_blocks_without_config()
    _check_tool_results(turns)


# -- blocks ----------------------------------------------------------------------------------------


def _check_system_block(block: SystemContentBlock, path: Steps) -> None:
    if block.text is not None and not block.text.strip():
        raise errors.blank_text("SystemContentBlock", dotted(path))
    if block.guard_content is not None and block.guard_content.image is not None:
        raise errors.unsupported_content("image")


def _check_messages(messages: Sequence[Message]) -> None:
    for index, message in enumerate(messages):
        for position, block in enumerate(message.content or ()):
            _check_block(block, message.role or "", ("messages", index, "content", position))
        if all(block.chosen == "cachePoint" for block in message.content or ()):
            raise errors.empty_content(f"messages.{index}")


def _check_block(block: ContentBlock, role: str, path: Steps) -> None:
    kind = block.chosen
    if kind in _MEDIA:
        raise errors.unsupported_content(kind)
    if kind in ("toolAddition", "toolRemoval"):
        raise errors.unsupported_field(kind)
    if (
        (kind in _USER_ONLY and role != "user")
        or (kind in _ASSISTANT_ONLY and role != "assistant")
        or (role == "system" and kind not in _PLAIN)
    ):
        raise errors.block_of_another_role(role, kind)
    if block.text is not None and not block.text.strip():
        raise errors.blank_text("ContentBlock", dotted(path))
    if block.guard_content is not None and block.guard_content.image is not None:
        raise errors.unsupported_content("image")
    if block.tool_use is not None and not isinstance(block.tool_use.input, dict):
        raise errors.not_a_json_object(dotted((*path, "toolUse", "input")))
    if block.tool_result is not None:
        _check_tool_result(block.tool_result, (*path, "toolResult"))


def _check_tool_result(result: ToolResultBlock, path: Steps) -> None:
    content = result.content or []
    if result.status == "error" and not content:
        raise errors.empty_error_result(dotted(path))
    for index, block in enumerate(content):
        if block.chosen in _MEDIA:
            raise errors.unsupported_content(block.chosen)
        if block.json is not None and not isinstance(block.json, dict):
            raise errors.not_a_json_object(dotted((*path, "content", index, "json")))


# -- turns -----------------------------------------------------------------------------------------


def _check_roles(turns: Sequence[Turn]) -> None:
    spoken = [turn for turn in turns if turn.role != "system"]
    if not spoken or spoken[0].role != "user":
        raise errors.must_start_with_user()
    if any(turn.role == before.role for before, turn in pairwise(turns)):
        raise errors.must_alternate()
    if spoken[-1].role != "user":
        raise errors.must_end_with_user()


def _check_tool_results(turns: Sequence[Turn]) -> None:
    """Each call is answered in the next turn of the user, and nothing else is."""
    called: list[str] = []
    for turn in turns:
        if turn.role == "system":
            continue
        answered = [result.tool_use_id for _, result in turn.results()]
        ids = set(answered)
        if len(answered) > len(called):
            raise errors.extra_tool_results(f"messages.{turn.index}.content")
        if missing := [call for call in called if call not in ids]:
            raise errors.missing_tool_results(f"messages.{turn.index}.content", missing)
        called = [call.tool_use_id or "" for call in turn.calls()]


# -- documents -------------------------------------------------------------------------------------


def _check_documents(messages: Sequence[Message]) -> None:
    names: list[str] = []
    for index, message in enumerate(messages):
        content = message.content or []
        if any(block.document is not None for block in content) and not any(
            block.text is not None for block in content
        ):
            raise errors.document_without_text()
        for path, document in _documents(content, ("messages", index, "content")):
            _check_document(document, path)
            names.append(document.name or "")
    if len(names) > MAX_DOCUMENTS:
        raise errors.too_many_documents(MAX_DOCUMENTS)
    if len(set(names)) < len(names):
        raise errors.duplicate_document_names()


def _documents(
    content: Sequence[ContentBlock | ToolResultContentBlock], path: Steps
) -> Iterator[tuple[Steps, DocumentBlock]]:
    for position, block in enumerate(content):
        if block.document is not None:
            yield (*path, position, "document"), block.document
        elif isinstance(block, ContentBlock) and block.tool_result is not None:
            inner = (*path, position, "toolResult", "content")
            yield from _documents(block.tool_result.content or (), inner)


def _check_document(document: DocumentBlock, path: Steps) -> None:
    if not _DOCUMENT_NAME.fullmatch(document.name or ""):
        raise errors.invalid_document_name()
    assert document.source is not None
    if document.source.s3_location is not None:
        raise errors.unsupported_field("document.source.s3Location")
    data = document.source.data
    if data is not None and len(data) > MAX_DOCUMENT_BYTES:
        raise errors.document_too_large(dotted(path), MAX_DOCUMENT_BYTES)
    if data is not None and document.format is None:
        raise errors.document_without_format(dotted(path))


# -- tools -----------------------------------------------------------------------------------------


def _check_tool_config(config: ToolConfiguration) -> None:
    names: set[str] = set()
    for index, tool in enumerate(config.tools or ()):
        path = f"toolConfig.tools.{index}"
        if tool.system_tool is not None:
            raise errors.unsupported_field(f"{path}.systemTool")
        if (spec := tool.tool_spec) is None:
            continue
        assert spec.input_schema is not None
        if problem := _schema_problem(spec.input_schema.json, f"{path}.toolSpec.inputSchema.json"):
            raise problem
        name = spec.name or ""
        if name in names:
            raise errors.duplicate_tool_name(f"{path}.toolSpec.name", name)
        names.add(name)
    if not names:
        raise errors.no_tool()
    choice = config.tool_choice
    if choice is not None and choice.tool is not None and choice.tool.name not in names:
        raise errors.unknown_tool_choice(choice.tool.name or "")


def _schema_problem(schema: object, path: str) -> ApiError | None:
    """Only what every reader of the schema relies on: it describes an object. A schema that does not say
    of what type it is does, too."""
    if not isinstance(schema, dict):
        return errors.not_a_json_object(path)
    if schema.get("type", "object") != "object":
        return errors.schema_not_of_object(f"{path}.type")
    return None


# -- inference parameters --------------------------------------------------------------------------


def check_stop_sequences(config: InferenceConfiguration) -> None:
    """Raises ValidationException for stop sequences that would take much memory to look for."""
    if sum(map(len, config.stop_sequences or ())) > MAX_STOP_CHARACTERS:
        raise errors.stop_sequences_too_long(MAX_STOP_CHARACTERS)
