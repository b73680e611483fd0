"""What a client may ask of `/openai/v1/responses`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from outcrop.api.chat import Chat, Place, text_bytes
from outcrop.api.errors import ApiError
from outcrop.api.field_error import FieldError, Refuse, unsupported
from outcrop.api.inference import GenerationCall
from outcrop.api.openai.content import Function
from outcrop.api.openai.conversation import chat_messages
from outcrop.api.openai.logprobs import MOST_LIKELIEST, LogprobsForm
from outcrop.api.openai.response_items import FunctionItem, InputItem, NamedChoice, TextConfig, message_of
from outcrop.api.openai.sampling import Temperature, TopP, tells_logprobs
from outcrop.api.openai.tools import check_names, choice_of, schema_of, tool_of
from outcrop.catalog.model import ServedModel
from outcrop.text.chat_template import ChatMessage
from outcrop.text.tools import Tool, ToolChoice

LOGPROBS: Final = "message.output_text.logprobs"
"""What `include` says for log probabilities."""


class ResponsesStreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_obfuscation: bool | None = None


class ResponsesRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A parameter that would change the answer and is not done here is refused rather than ignored. The
    server keeps no responses: `store` may only be false, and without it a response says that it is. What
    changes nothing is taken: user, metadata, safety_identifier, prompt_cache_key, include of things that
    these answers have none of."""

    model: str
    input: str | list[InputItem]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    tools: list[FunctionItem] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    stream: bool | None = None
    stream_options: ResponsesStreamOptions | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MOST_LIKELIEST)] | None = None

    store: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    background: bool | None = None
    truncation: str | None = None
    reasoning: Any = None
    max_tool_calls: int | None = None

    def chat(self, model: ServedModel, refuse: Refuse) -> Chat:
        """refuse: the words for what is found wrong later on. Raises FieldError."""
        self._refuse_unsupported(model)
        messages = self._messages()
        tools, choice = self._tools()
        schema = self._schema()
        if schema is not None and tools:
            raise FieldError("text.format", "It can't be used together with tools. Remove one of them.")
        if self._tells_logprobs and tools:
            # They are members of texts, and which tokens are of a text and which of a call is not known.
            raise FieldError("include", f"{LOGPROBS} can't be used together with tools. Remove one of them.")

        def blame(place: Place, reason: str) -> ApiError:
            paths = {"answer": "text.format.schema", "tools": "tools"}
            path = f"tools[{place}].parameters" if isinstance(place, int) else paths[place]
            return refuse(FieldError(path, reason))

        return Chat(model, lambda: messages, blame, tools, choice, schema)

    @property
    def _tells_logprobs(self) -> bool:
        return LOGPROBS in (self.include or ())

    def logprobs_form(self, model: ServedModel) -> LogprobsForm | None:
        """How the answer tells log probabilities, if it does."""
        return LogprobsForm(model.tokenizer) if self._tells_logprobs else None

    def call(self, chat: Chat, priority: int) -> GenerationCall:
        return chat.call(
            prompt_bytes=text_bytes(chat.read()),
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            max_tokens=self.max_output_tokens,
            priority=priority,
            logprobs=(self.top_logprobs or 0) if self._tells_logprobs else None,
        )

    def _messages(self) -> Sequence[ChatMessage]:
        given = self.input
        items = [InputItem(role="user", content=given)] if isinstance(given, str) else given
        try:
            messages = chat_messages(
                [message_of(item, f"input[{index}]") for index, item in enumerate(items)], "input"
            )
        except FieldError as error:
            raise FieldError(_of_item(error.path), error.problem, error.fault) from None
        if not self.instructions:
            return messages
        if messages[0].role == "system":
            first = ChatMessage("system", f"{self.instructions}\n{messages[0].content}")
            return [first, *messages[1:]]
        return [ChatMessage("system", self.instructions), *messages]

    def _tools(self) -> tuple[Sequence[Tool], ToolChoice]:
        tools = [_tool(item, f"tools[{index}]") for index, item in enumerate(self.tools or ())]
        check_names(tools)
        given = self.tool_choice
        if given == "none":
            tools = []
        name = given.name if isinstance(given, NamedChoice) else None
        word = given if isinstance(given, str) else None
        return tools, choice_of(word, name, tools, parallel=self.parallel_tool_calls is not False)

    def _schema(self) -> Mapping[str, Any] | None:
        given = self.text.format if self.text is not None else None
        return None if given is None else schema_of(given.type, given.schema, "text.format.schema")

    def _refuse_unsupported(self, model: ServedModel) -> None:
        """Raises FieldError."""
        resend = "responses are not stored: send the items of the conversation in input."
        effort = self.reasoning.get("effort") if isinstance(self.reasoning, dict) else self.reasoning
        verbosity = self.text.verbosity if self.text is not None else None
        refused = {
            "store": (self.store, "responses are not stored."),
            "previous_response_id": (self.previous_response_id is not None, resend),
            "conversation": (self.conversation is not None, resend),
            "prompt": (self.prompt is not None, "send the prompt's text in instructions or input."),
            "background": (self.background, "wait for the response, or stream it."),
            "truncation": (self.truncation not in (None, "disabled"), "shorten the input instead."),
            "reasoning": (effort not in (None, "none"), "the model does not think aloud."),
            "text.verbosity": (verbosity not in (None, "medium"), "ask for it in the prompt."),
            "include": (self._tells_logprobs and not tells_logprobs(model), "the model's engine tells none."),
            "top_logprobs": (
                self.top_logprobs and not self._tells_logprobs,
                f"it is for include: [{LOGPROBS}].",
            ),
            "max_tool_calls": (self.max_tool_calls is not None, "it is for tools of OpenAI's servers."),
            "stream_options": (self.stream_options and not self.stream, "they are for stream: true."),
        }
        for path, (is_given, advice) in refused.items():
            if is_given:
                raise unsupported(path, advice)


DECODER = msgspec.json.Decoder(ResponsesRequest)


def _of_item(path: str) -> str:
    """A path in the message that an item became, as one in the item."""
    return path.replace(".tool_calls[0].function", "").replace(".tool_call_id", ".call_id")


def _tool(item: FunctionItem, path: str) -> Tool:
    if item.type != "function":
        raise unsupported(f"{path}.type", f"{item.type[:256]!r} is a tool of OpenAI's servers.")
    if item.name is None:
        raise FieldError(f"{path}.name", "This parameter is required.", "missing")
    function = Function(
        name=item.name, description=item.description, parameters=item.parameters, strict=item.strict
    )
    return tool_of(function, path)
