"""One Messages request to one model: the call that it asks for, and the answer that grows from it."""

from __future__ import annotations

from dataclasses import dataclass

from outcrop.api import stops
from outcrop.api.anthropic.conversation import Conversation
from outcrop.api.anthropic.message import GrowingMessage
from outcrop.api.anthropic.messages_request import MessagesRequest
from outcrop.api.chat import Chat, Place
from outcrop.api.errors import ApiError
from outcrop.api.field_error import FieldError, Refuse
from outcrop.api.inference import GenerationCall
from outcrop.catalog.model import ServedModel

_DEFAULT_TEMPERATURE = 1.0
_DEFAULT_TOP_P = 1.0
_CALL_PREFIX = "toolu_"


@dataclass(frozen=True, slots=True)
class Messages:
    """A checked request."""

    request: MessagesRequest
    chat: Chat
    least_bytes: int

    @classmethod
    def of(cls, request: MessagesRequest, model: ServedModel, refuse: Refuse) -> Messages:
        """From a request whose shape is right. refuse: the words for what is found wrong later on. Raises
        FieldError."""
        request.refuse_unsupported()
        tools = request.offered()
        conversation = Conversation.of(request)
        schema = "output_format" if request.output_format is not None else "output_config.format.schema"

        def blame(place: Place, reason: str) -> ApiError:
            paths = {"answer": schema, "tools": "tools"}
            path = f"tools[{place}].input_schema" if isinstance(place, int) else paths[place]
            return refuse(FieldError(path, reason))

        chat = Chat(
            model,
            read=lambda: conversation.read(refuse),
            blame=blame,
            tools=tools,
            choice=request.choice(tools),
            json_schema=request.schema,
            prefill=conversation.prefill,
        )
        return cls(request, chat, conversation.least_bytes)

    def call(self, priority: int = 0) -> GenerationCall:
        """Raises FieldError."""
        request = self.request
        if request.max_tokens is None:
            raise FieldError("max_tokens", "This parameter is required.", "missing")
        return self.chat.call(
            prompt_bytes=self.least_bytes,
            temperature=_DEFAULT_TEMPERATURE if request.temperature is None else request.temperature,
            top_p=_DEFAULT_TOP_P if request.top_p is None else request.top_p,
            max_tokens=request.max_tokens,
            extras=request.extras(),
            stop=stops.checked("stop_sequences", request.stop_sequences),
            priority=priority,
        )

    def answer(self, model: str, *, infix: str = "") -> GrowingMessage:
        """model: what the client called it. infix: in the ids of the message and of calls, behind what
        Anthropic's begin with."""
        events = self.chat.events(call_prefix=_CALL_PREFIX + infix)
        return GrowingMessage(events, model, prefix=f"msg_{infix}", marks_cache=self.request.marks_cache)
