"""The native body of Cohere's Command R and R+. See "Cohere Command R and Command R+ models" in the Amazon
Bedrock user guide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from outcrop.api import stops
from outcrop.api.bedrock_runtime.families.command import GrowingCommand
from outcrop.api.bedrock_runtime.families.family import Invocation, ShapedFamily, Stops, Unit, refuse
from outcrop.api.bedrock_runtime.prompt_source import Target
from outcrop.api.chat import Chat, Place, text_bytes
from outcrop.api.errors import ApiError
from outcrop.api.field_error import FieldError, decode, unsupported
from outcrop.api.openai.tools import check_names
from outcrop.api.sampling import MAX_SEED, SamplingExtras
from outcrop.text.chat_template import ChatMessage
from outcrop.text.documents import document_prompt
from outcrop.text.tools import AUTO, Tool, ToolCall, ToolResult

_DEFAULT_TEMPERATURE, _DEFAULT_TOP_P = 0.3, 0.75
_TYPES = {
    "str": "string",
    "string": "string",
    "int": "integer",
    "integer": "integer",
    "float": "number",
    "number": "number",
    "bool": "boolean",
    "boolean": "boolean",
    "list": "array",
    "array": "array",
    "dict": "object",
    "object": "object",
}
"""JSON Schema's name of each type; in the guide parameters have Python's. Another leaves the value free."""


class _Call(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    parameters: dict[str, Any]
    generation_id: str | None = None


class _Result(msgspec.Struct, forbid_unknown_fields=True):
    call: _Call
    outputs: list[dict[str, Any]]


class _Turn(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["USER", "CHATBOT", "SYSTEM", "TOOL"]
    message: str | None = None
    tool_calls: list[_Call] | None = None
    tool_results: list[_Result] | None = None


class _Parameter(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    description: str | None = None
    required: bool | None = None


class _Tool(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,128}$")]
    description: str | None = None
    parameter_definitions: dict[str, _Parameter] | None = None


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    message: str
    chat_history: list[_Turn] | None = None
    preamble: str | None = None
    documents: list[dict[str, Any]] | None = None
    tools: list[_Tool] | None = None
    tool_results: list[_Result] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Unit | None = None
    p: Unit | None = None
    k: Annotated[int, Meta(ge=0, le=500)] | None = None
    seed: Annotated[int, Meta(ge=0)] | None = None
    frequency_penalty: Unit | None = None
    presence_penalty: Unit | None = None
    stop_sequences: Stops | None = None
    stream: bool | None = None

    search_queries_only: bool | None = None
    prompt_truncation: str | None = None
    return_prompt: bool | None = None
    raw_prompting: bool | None = None
    force_single_step: bool | None = None
    citation_quality: str | None = None


_DECODER = msgspec.json.Decoder(_Body)


class Cohere(ShapedFamily):
    """Documents stand in the prompt before the message; answers cite nothing, which the guide lets them.
    `stream` is taken, and the operation decides: the older Command models wanted it, so clients send it."""

    def invocation(self, body: bytes, target: Target, priority: int) -> Invocation:
        request = decode(body, _DECODER)
        _refuse_unsupported(request)
        messages = _messages(request)
        tools = [_tool(tool) for tool in request.tools or ()]
        check_names(tools)

        def blame(place: Place, reason: str) -> ApiError:
            path = f"tools[{place}].parameter_definitions" if isinstance(place, int) else "tools"
            return refuse(FieldError(path, reason))

        chat = Chat(target.model, lambda: messages, blame, tools, AUTO)
        extras = SamplingExtras(
            top_k=request.k or 0,
            seed=None if request.seed is None else request.seed & MAX_SEED,
            presence_penalty=request.presence_penalty or 0.0,
            frequency_penalty=request.frequency_penalty or 0.0,
        )
        call = chat.call(
            prompt_bytes=text_bytes(messages),
            temperature=_DEFAULT_TEMPERATURE if request.temperature is None else request.temperature,
            top_p=_DEFAULT_TOP_P if request.p is None else request.p,
            max_tokens=request.max_tokens,
            extras=extras,
            stop=stops.checked("stop_sequences", request.stop_sequences),
            priority=priority,
        )
        history = [{"role": turn.role, "message": turn.message or ""} for turn in request.chat_history or ()]
        history.append({"role": "USER", "message": request.message})
        return Invocation(call, GrowingCommand(chat.events(), history), chat.prepare_unbounded)


def _refuse_unsupported(request: _Body) -> None:
    """Raises FieldError."""
    refused = {
        "search_queries_only": (request.search_queries_only, "the model makes no search queries."),
        "prompt_truncation": (
            request.prompt_truncation not in (None, "OFF"),
            "a prompt that is too long is refused. Shorten it instead.",
        ),
        "return_prompt": (request.return_prompt, "remove it and try again."),
        "raw_prompting": (request.raw_prompting, "use a Llama model's id for prompts of your own."),
        "force_single_step": (request.force_single_step, "remove it and try again."),
        "citation_quality": (request.citation_quality is not None, "answers cite nothing."),
    }
    for path, (is_given, advice) in refused.items():
        if is_given:
            raise unsupported(path, advice)
    for index, turn in enumerate(request.chat_history or ()):
        if turn.tool_calls and turn.role != "CHATBOT":
            raise FieldError(f"chat_history[{index}].tool_calls", "Only a CHATBOT turn may have them.")
        if turn.tool_results and turn.role != "TOOL":
            raise FieldError(f"chat_history[{index}].tool_results", "Only a TOOL turn may have them.")
    if not request.message.strip() and not request.tool_results:
        raise FieldError("message", "It may be empty only beside tool_results.")


def _messages(request: _Body) -> list[ChatMessage]:
    """The history, then the message, then the results of tools with the calls that they answer."""
    messages: list[ChatMessage] = []
    numbers = count()
    if request.preamble:
        messages.append(ChatMessage("system", request.preamble))
    for turn in request.chat_history or ():
        messages += _turn(turn, messages, numbers)
    documents = [_document(index, document) for index, document in enumerate(request.documents or ())]
    if texts := [*documents, *filter(None, (request.message,))]:
        messages.append(ChatMessage("user", "\n".join(texts)))
    if request.tool_results:
        messages += _results(request.tool_results, messages, numbers)
    return messages


def _turn(turn: _Turn, before: Sequence[ChatMessage], numbers: Iterator[int]) -> Sequence[ChatMessage]:
    if turn.role == "TOOL":
        return _results(turn.tool_results or (), before, numbers)
    roles = {"USER": "user", "CHATBOT": "assistant", "SYSTEM": "system"}
    return [ChatMessage(roles[turn.role], turn.message or "", _calls(turn.tool_calls or (), numbers))]


def _calls(calls: Iterable[_Call], numbers: Iterator[int]) -> tuple[ToolCall, ...]:
    """Calls have no ids in Cohere's form: they are numbered through the conversation."""
    return tuple(ToolCall(call.name, call.parameters, f"call_{next(numbers)}") for call in calls)


def _results(
    results: Sequence[_Result], before: Sequence[ChatMessage], numbers: Iterator[int]
) -> list[ChatMessage]:
    """The results, behind the model's turn that made the calls: where the history does not hold it, the
    results themselves say what it was."""
    made = (
        []
        if before and before[-1].tool_calls
        else [ChatMessage("assistant", "", _calls((result.call for result in results), numbers))]
    )
    calls = (made or before)[-1].tool_calls
    answers = []
    for index, result in enumerate(results):
        text = "\n".join(msgspec.json.encode(output).decode() for output in result.outputs)
        call_id = calls[index].id if index < len(calls) else ""
        answers.append(ToolResult(text, call_id, result.call.name))
    return [*made, ChatMessage("user", "", tool_results=tuple(answers))]


def _document(index: int, document: dict[str, Any]) -> str:
    """A document is an object of strings; `title` or `id` is its name."""
    for key, value in document.items():
        if not isinstance(value, str):
            raise FieldError(f"documents[{index}].{key}", "It must be a string.")
    name = document.get("title") or document.get("id") or str(index)
    lines = [f"{key}: {value}" for key, value in document.items() if key not in ("title", "id")]
    return document_prompt(name, "\n".join(lines))


def _tool(tool: _Tool) -> Tool:
    definitions = tool.parameter_definitions or {}
    properties = {name: _property(parameter) for name, parameter in definitions.items()}
    required = [name for name, parameter in definitions.items() if parameter.required]
    schema = {"type": "object", "properties": properties, "required": required}
    return Tool(tool.name, tool.description or "", schema)


def _property(parameter: _Parameter) -> dict[str, Any]:
    described = {"description": parameter.description} if parameter.description else {}
    base = parameter.type.partition("[")[0].strip().lower()
    return ({"type": _TYPES[base]} if base in _TYPES else {}) | described
