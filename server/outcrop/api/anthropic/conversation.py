"""The messages of a Messages request in the terms of a chat template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from outcrop.api.anthropic.content import (
    AnyBlock,
    BytesSource,
    ContentSource,
    DocumentBlock,
    ImageBlock,
    Message,
    SearchResultBlock,
    TextBlock,
    TextSource,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)
from outcrop.api.anthropic.messages_request import MessagesRequest
from outcrop.api.field_error import FieldError, Refuse, unsupported
from outcrop.text.chat_template import ChatMessage
from outcrop.text.documents import DocumentError, document_prompt, extract_text
from outcrop.text.tools import ToolCall, ToolResult

MAX_PDFS = 5
"""Of one request, as in Converse: each is read in a process of its own."""

_NO_IMAGES = "the model reads text. Remove the image and try again."


@dataclass(frozen=True, slots=True)
class _Turn:
    """Messages in a row by one role. blocks: each with its path."""

    role: str
    path: str
    blocks: list[tuple[str, AnyBlock]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A checked conversation. prefill: how the answer is to begin: the text of a last turn that is the
    assistant's. least_bytes: of the prompt in UTF-8, known without reading documents."""

    system: str
    turns: Sequence[_Turn]
    prefill: str
    least_bytes: int

    @classmethod
    def of(cls, request: MessagesRequest) -> Conversation:
        """Raises FieldError."""
        turns = _turns(request.messages)
        if turns[0].role != "user":
            raise FieldError("messages[0].role", 'The first message must use the "user" role.')
        for turn in turns:
            _check_turn(turn)
        _check_results(turns)
        if sum(map(_pdfs, turns)) > MAX_PDFS:
            raise FieldError("messages", f"There are more than {MAX_PDFS} PDF documents.")
        prefill = _prefill(turns.pop()) if turns[-1].role == "assistant" else ""
        system = request.system
        if isinstance(system, list):
            system = "\n".join(block.text for block in system)
        texts = [block.text for turn in turns for _, block in turn.blocks if isinstance(block, TextBlock)]
        least = sum(len(text.strip().encode()) for text in (*texts, system or "", prefill))
        return cls(system or "", turns, prefill, least)

    def read(self, refuse: Refuse) -> list[ChatMessage]:
        """The messages. Reads documents, so call it in a thread. Raises what `refuse` makes of a document
        that cannot be read."""
        try:
            messages = [_chat_message(turn) for turn in self.turns]
        except FieldError as error:
            raise refuse(error) from None
        return [ChatMessage("system", self.system), *messages] if self.system.strip() else messages


# -- rules -----------------------------------------------------------------------------------------


def _turns(messages: Sequence[Message]) -> list[_Turn]:
    turns: list[_Turn] = []
    for index, message in enumerate(messages):
        role = "user" if isinstance(message, UserMessage) else "assistant"
        path = f"messages[{index}]"
        if not turns or turns[-1].role != role:
            turns.append(_Turn(role, path))
        content = [TextBlock(text=message.content)] if isinstance(message.content, str) else message.content
        if not content and (role == "user" or index + 1 < len(messages)):
            raise FieldError(f"{path}.content", "All messages must have non-empty content.")
        turns[-1].blocks.extend((f"{path}.content[{at}]", block) for at, block in enumerate(content))
    return turns


def _check_turn(turn: _Turn) -> None:
    for path, block in turn.blocks:
        if isinstance(block, ImageBlock):
            raise unsupported(path, _NO_IMAGES)
        if isinstance(block, TextBlock) and not block.text.strip():
            raise FieldError(f"{path}.text", "Text content blocks must contain non-whitespace text.")
        if isinstance(block, DocumentBlock | SearchResultBlock):
            _check_document(path, block)
        if isinstance(block, ToolResultBlock) and isinstance(block.content, list):
            for at, inner in enumerate(block.content):
                inner_path = f"{path}.content[{at}]"
                if isinstance(inner, ImageBlock):
                    raise unsupported(inner_path, _NO_IMAGES)
                if isinstance(inner, DocumentBlock | SearchResultBlock):
                    _check_document(inner_path, inner)


def _check_document(path: str, block: DocumentBlock | SearchResultBlock) -> None:
    if block.citations is not None and block.citations.enabled:
        raise unsupported(f"{path}.citations", "the model cites nothing. Remove it and try again.")
    if isinstance(block, SearchResultBlock):
        return
    source = block.source
    if not isinstance(source, BytesSource | TextSource | ContentSource):
        raise unsupported(f"{path}.source.type", "send the document itself, in base64 or as text.")
    if isinstance(source, ContentSource) and isinstance(source.content, list):
        for at, part in enumerate(source.content):
            if isinstance(part, ImageBlock):
                raise unsupported(f"{path}.source.content[{at}]", _NO_IMAGES)


def _check_results(turns: Sequence[_Turn]) -> None:
    """Each call is answered in the next turn of the user, and nothing else is."""
    called: dict[str, None] = {}  # in their order
    for turn in turns:
        results = [
            (path, block.tool_use_id) for path, block in turn.blocks if isinstance(block, ToolResultBlock)
        ]
        for path, tool_use_id in results:
            if tool_use_id not in called:
                raise FieldError(
                    f"{path}.tool_use_id", "Each tool_result must answer a tool_use of the message before it."
                )
        answered = {tool_use_id for _, tool_use_id in results}
        if missing := [call for call in called if call not in answered]:
            raise FieldError(
                turn.path,
                f"tool_use ids were found without tool_result blocks after them: {missing[0][:256]}",
            )
        called = dict.fromkeys(block.id for _, block in turn.blocks if isinstance(block, ToolUseBlock))


def _pdfs(turn: _Turn) -> int:
    blocks: list[object] = [block for _, block in turn.blocks]
    for _, block in turn.blocks:
        if isinstance(block, ToolResultBlock) and isinstance(block.content, list):
            blocks += block.content
    return sum(isinstance(each, DocumentBlock) and isinstance(each.source, BytesSource) for each in blocks)


def _prefill(turn: _Turn) -> str:
    if any(isinstance(block, ToolUseBlock) for _, block in turn.blocks):
        raise FieldError(turn.path, "The last message's tool_use blocks need tool_result blocks after them.")
    text = "\n".join(block.text for _, block in turn.blocks if isinstance(block, TextBlock))
    if text != text.rstrip():
        raise FieldError(turn.path, "Final assistant content cannot end with trailing whitespace.")
    return text


# -- the prompt ------------------------------------------------------------------------------------


def _chat_message(turn: _Turn) -> ChatMessage:
    """Texts stand in their order, a line break between them: the prompt format knows one text a turn."""
    blocks = [block for _, block in turn.blocks]
    text = "\n".join(text for path, block in turn.blocks for text in _texts(path, block))
    calls = [ToolCall(each.name, each.input, each.id) for each in blocks if isinstance(each, ToolUseBlock)]
    results = [
        ToolResult("\n".join(_result_texts(path, each)), each.tool_use_id, is_error=bool(each.is_error))
        for path, each in turn.blocks
        if isinstance(each, ToolResultBlock)
    ]
    return ChatMessage(turn.role, text, tuple(calls), tuple(results))


def _texts(path: str, block: AnyBlock) -> Iterator[str]:
    """What a block adds to the text of its turn. Thinking of earlier turns adds nothing."""
    if isinstance(block, TextBlock):
        yield block.text
    elif isinstance(block, DocumentBlock):
        yield _document(path, block)
    elif isinstance(block, SearchResultBlock):
        body = "\n".join(part.text for part in block.content)
        yield document_prompt(block.title, f"{block.source}\n{body}")


def _result_texts(path: str, result: ToolResultBlock) -> Iterator[str]:
    if not isinstance(result.content, list):
        yield result.content or ""
        return
    for at, block in enumerate(result.content):
        yield from _texts(f"{path}.content[{at}]", block)


def _document(path: str, block: DocumentBlock) -> str:
    match block.source:
        case BytesSource(data=data):
            try:
                text = extract_text("pdf", data)
            except DocumentError as error:
                raise FieldError(f"{path}.source", str(error)) from None
        case TextSource(data=text):
            pass
        case ContentSource(content=str(text)):
            pass
        case ContentSource(content=parts):
            text = "\n".join(part.text for part in parts if isinstance(part, TextBlock))
        case other:
            raise AssertionError(f"refused before: {type(other)}")
    context = f"{block.context.strip()}\n" if block.context else ""
    return document_prompt(block.title or "", context + text)
