"""What a client may ask of `/openai/v1/chat/completions`, and of models that speak it through InvokeModel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from outcrop.api.chat import Chat, Place, text_bytes
from outcrop.api.errors import ApiError
from outcrop.api.field_error import FieldError, Refuse, unsupported
from outcrop.api.inference import GenerationCall
from outcrop.api.openai.completion_request import StreamOptions
from outcrop.api.openai.content import FunctionTool, Message, NamedToolChoice, ResponseFormat
from outcrop.api.openai.conversation import chat_messages
from outcrop.api.openai.logprobs import MOST_LIKELIEST, LogprobsForm
from outcrop.api.openai.sampling import Sampled, tells_logprobs
from outcrop.api.openai.tools import check_names, choice_of, schema_of, tool_of
from outcrop.catalog.model import ServedModel
from outcrop.text.tools import Tool, ToolChoice

MAX_CHOICES = 128

_Tokens = Annotated[int, Meta(ge=1)]


class ChatRequest(Sampled, kw_only=True):
    """A parameter that would change the answer and is not done here is refused rather than ignored. Those
    that change nothing are taken: user, metadata, safety_identifier, prompt_cache_key."""

    messages: list[Message]
    model: str | None = None
    max_completion_tokens: _Tokens | None = None
    max_tokens: _Tokens | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required", "any"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MOST_LIKELIEST)] | None = None
    store: bool | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    modalities: list[str] | None = None
    audio: Any = None
    prediction: Any = None
    functions: Any = None
    function_call: Any = None
    web_search_options: Any = None

    @property
    def includes_usage(self) -> bool:
        """Whether a stream is to end with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def limit(self) -> int | None:
        """Tokens of the answer at most."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def chat(self, model: ServedModel, refuse: Refuse) -> Chat:
        """refuse: the words for what is found wrong later on. Raises FieldError."""
        self._refuse_unsupported(model)
        messages = chat_messages(self.messages)
        tools, choice = self._tools()
        schema = self._schema()
        if schema is not None and tools:
            raise FieldError("response_format", "It can't be used together with tools. Remove one of them.")

        def blame(place: Place, reason: str) -> ApiError:
            paths = {"answer": "response_format.json_schema.schema", "tools": "tools"}
            path = f"tools[{place}].function.parameters" if isinstance(place, int) else paths[place]
            return refuse(FieldError(path, reason))

        return Chat(model, lambda: messages, blame, tools, choice, schema)

    def logprobs_form(self, model: ServedModel) -> LogprobsForm | None:
        """How the choices tell log probabilities, if they do."""
        return LogprobsForm(model.tokenizer) if self.logprobs else None

    def calls(
        self,
        chat: Chat,
        *,
        default_temperature: float = 1.0,
        default_top_p: float = 1.0,
        default_max_tokens: int | None = None,
        priority: int = 0,
    ) -> list[GenerationCall]:
        """One call for each choice. Raises FieldError."""
        call = chat.call(
            prompt_bytes=text_bytes(chat.read()),
            temperature=default_temperature if self.temperature is None else self.temperature,
            top_p=default_top_p if self.top_p is None else self.top_p,
            max_tokens=self.limit,
            default_max_tokens=default_max_tokens,
            extras=self.extras(chat.model.tokenizer.vocab_size),
            stop=self.stops,
            priority=priority,
            ignore_eos=bool(self.ignore_eos),
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )
        return [replace(call, choice=number) for number in range(self.n or 1)]

    def _tools(self) -> tuple[Sequence[Tool], ToolChoice]:
        tools = [
            tool_of(tool.function, f"tools[{index}].function") for index, tool in enumerate(self.tools or ())
        ]
        check_names(tools)
        given = self.tool_choice
        if given == "none":
            tools = []
        name = given.function.name if isinstance(given, NamedToolChoice) else None
        word = given if isinstance(given, str) else None
        return tools, choice_of(word, name, tools, parallel=self.parallel_tool_calls is not False)

    def _schema(self) -> Mapping[str, Any] | None:
        given = self.response_format
        if given is None:
            return None
        schema = given.json_schema.schema if given.json_schema is not None else None
        return schema_of(given.type, schema, "response_format.json_schema")

    def _refuse_unsupported(self, model: ServedModel) -> None:
        """Raises FieldError."""
        alone = self.top_logprobs is not None and not self.logprobs
        refused = {
            "logprobs": (self.logprobs and not tells_logprobs(model), "the model's engine tells none."),
            "top_logprobs": (alone, "it is for logprobs: true."),
            "store": (self.store, "nothing is stored."),
            "reasoning_effort": (self.reasoning_effort not in (None, "none"), "the model knows one effort."),
            "verbosity": (self.verbosity not in (None, "medium"), "ask for it in the prompt."),
            "modalities": (self.modalities not in (None, ["text"]), "the model writes text."),
            "audio": (self.audio is not None, "the model writes text."),
            "prediction": (self.prediction is not None, "the server guesses by itself where it may."),
            "functions": (self.functions is not None, "use tools, which took its place."),
            "function_call": (self.function_call is not None, "use tool_choice, which took its place."),
            "web_search_options": (self.web_search_options is not None, "the server does not search."),
            "stream_options": (
                self.stream_options is not None and not self.stream,
                "it is for stream: true.",
            ),
        }
        for path, (is_given, advice) in refused.items():
            if is_given:
                raise unsupported(path, advice)


DECODER = msgspec.json.Decoder(ChatRequest)
