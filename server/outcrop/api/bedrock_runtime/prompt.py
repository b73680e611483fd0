"""A checked conversation in the terms of a chat template: messages and tools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from outcrop.api import errors
from outcrop.api.bedrock_runtime.content import (
    ContentBlock,
    SystemContentBlock,
    ToolResultBlock,
    ToolResultContentBlock,
)
from outcrop.api.bedrock_runtime.media import DocumentBlock, SearchResultBlock
from outcrop.api.bedrock_runtime.models import ConverseTokensRequest, ToolConfiguration
from outcrop.api.bedrock_runtime.turns import Turn
from outcrop.api.shapes import Steps
from outcrop.api.smithy import dotted
from outcrop.text.chat_template import ChatMessage
from outcrop.text.documents import DocumentError, document_prompt, extract_text
from outcrop.text.tools import ANY, AUTO, Tool, ToolCall, ToolChoice, ToolResult


def chat_messages(request: ConverseTokensRequest, turns: Sequence[Turn]) -> list[ChatMessage]:
    """The system prompt and the turns. Reads the documents, so call it in a thread. Raises
    ValidationException for a document that cannot be read."""
    messages = [_chat_message(turn) for turn in turns]
    system = "\n".join(filter(None, map(_system_text, request.system or ())))
    return [ChatMessage("system", system), *messages] if system else messages


def least_bytes(request: ConverseTokensRequest, turns: Sequence[Turn]) -> int:
    """A lower bound of the prompt's UTF-8 length, known without reading documents or writing tools."""
    texts = [block.text for turn in turns for _, block in turn.blocks]
    texts += [block.text for block in request.system or ()]
    return sum(len(text.strip().encode()) for text in texts if text)


def tools_of(config: ToolConfiguration | None) -> list[Tool]:
    """The tools that a request offers."""
    specs = [tool.tool_spec for tool in (config.tools if config else None) or ()]
    return [
        Tool(spec.name or "", spec.description or "", _schema(spec.input_schema), bool(spec.strict))
        for spec in specs
        if spec is not None
    ]


def tool_choice_of(config: ToolConfiguration | None) -> ToolChoice:
    choice = config.tool_choice if config else None
    if choice is not None and choice.tool is not None:
        return ToolChoice("tool", choice.tool.name or "")
    return ANY if choice is not None and choice.any is not None else AUTO


def _schema(schema: Any) -> dict[str, Any]:
    return {"type": "object", **schema.json}


def _system_text(block: SystemContentBlock) -> str:
    if block.guard_content is not None and block.guard_content.text is not None:
        return block.guard_content.text.text or ""
    return block.text or ""


def _chat_message(turn: Turn) -> ChatMessage:
    """Texts stand in their order, a line break between them: the prompt format knows one text a turn."""
    texts = [text for path, block in turn.blocks for text in _texts(block, path)]
    calls = tuple(ToolCall(call.name or "", call.input, call.tool_use_id or "") for call in turn.calls())
    results = tuple(
        ToolResult(
            content="\n".join(_result_texts(result, path)),
            call_id=result.tool_use_id or "",
            is_error=result.status == "error",
        )
        for path, result in turn.results()
    )
    return ChatMessage(turn.role, "\n".join(texts), calls, results)


def _texts(block: ContentBlock, path: Steps) -> Iterator[str]:
    """What a block adds to the text of its turn. Reasoning of earlier turns adds nothing."""
    if block.text is not None:
        yield block.text
    elif block.document is not None:
        yield _document_text(block.document, (*path, "document"))
    elif block.search_result is not None:
        yield _search_result_text(block.search_result)
    elif block.guard_content is not None and block.guard_content.text is not None:
        yield block.guard_content.text.text or ""
    elif block.citations_content is not None:
        yield "".join(part.text or "" for part in block.citations_content.content or ())


def _result_texts(result: ToolResultBlock, path: Steps) -> Iterator[str]:
    for index, block in enumerate(result.content or ()):
        yield _result_text(block, (*path, "content", index))


def _result_text(block: ToolResultContentBlock, path: Steps) -> str:
    if block.json is not None:
        return msgspec.json.encode(block.json).decode()
    if block.document is not None:
        return _document_text(block.document, (*path, "document"))
    if block.search_result is not None:
        return _search_result_text(block.search_result)
    return block.text or ""


def _document_text(document: DocumentBlock, path: Steps) -> str:
    assert document.source is not None
    source = document.source
    if source.data is not None:
        try:
            text = extract_text(document.format or "", source.data)
        except DocumentError as error:
            raise errors.unreadable_document(dotted(path), str(error)) from None
    elif source.content is not None:
        text = "\n".join(part.text or "" for part in source.content)
    else:
        text = source.text or ""
    context = f"{document.context.strip()}\n" if document.context else ""
    return document_prompt(document.name or "", context + text)


def _search_result_text(result: SearchResultBlock) -> str:
    body = "\n".join(part.text or "" for part in result.content or ())
    return document_prompt(result.title or "", f"{result.source}\n{body}")
