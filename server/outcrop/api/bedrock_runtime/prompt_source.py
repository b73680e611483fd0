"""What a Converse prompt is made of, and how it is made: shared by Converse and CountTokens."""

from __future__ import annotations

from dataclasses import dataclass

from outcrop.api import errors
from outcrop.api.bedrock_runtime import llama_on_bedrock, prompt
from outcrop.api.bedrock_runtime.models import ConverseTokensRequest
from outcrop.api.bedrock_runtime.rules import check_conversation
from outcrop.api.bedrock_runtime.turns import Turn, turns_of
from outcrop.api.chat import Chat, Place
from outcrop.api.errors import ApiError
from outcrop.catalog.model import ServedModel
from outcrop.text.tools import Tool, ToolChoice

_TEXT_FORMAT = "outputConfig.textFormat.structure.jsonSchema.schema"


@dataclass(frozen=True, slots=True)
class Target:
    """The model that a request is for. identifier: as the client named it. strict: whether the request is
    held to what that model accepts on Bedrock. routed: a prompt router chose it, and identifier is what the
    router calls it."""

    model: ServedModel
    identifier: str
    strict: bool = False
    routed: bool = False


@dataclass(frozen=True, slots=True)
class PromptSource:
    """A checked conversation. json_schema: of the whole answer, as JSON text; None to leave it free."""

    target: Target
    request: ConverseTokensRequest
    turns: list[Turn]
    tools: list[Tool]
    choice: ToolChoice
    json_schema: str | None = None

    @classmethod
    def of(
        cls,
        request: ConverseTokensRequest,
        target: Target,
        *,
        streaming: bool = False,
        json_schema: str | None = None,
    ) -> PromptSource:
        """From a request whose shape has been checked. Raises ValidationException."""
        turns = turns_of(request.messages or (), merge=not target.strict)
        if target.strict:
            llama_on_bedrock.refuse_prompt(target.identifier, request, streaming=streaming)
            llama_on_bedrock.refuse_turns(turns)
        check_conversation(request, turns)
        config = request.tool_config
        if json_schema is not None and config is not None:
            raise errors.text_format_with_tools()
        return cls(
            target, request, turns, prompt.tools_of(config), prompt.tool_choice_of(config), json_schema
        )

    def least_bytes(self) -> int:
        """A lower bound of the prompt's UTF-8 length."""
        return prompt.least_bytes(self.request, self.turns)

    @property
    def chat(self) -> Chat:
        """The conversation in the terms of the model's chat template."""
        return Chat(
            self.target.model,
            read=lambda: prompt.chat_messages(self.request, self.turns),
            blame=self._blame,
            tools=self.tools,
            choice=self.choice,
            json_schema=self.json_schema,
        )

    def _blame(self, place: Place, reason: str) -> ApiError:
        config = self.request.tool_config
        if place == "answer" or config is None:
            return errors.unusable_schema(_TEXT_FORMAT, reason)
        if place == "tools":
            return errors.unusable_schema("toolConfig.tools", reason)
        # Cache points may stand between the tools.
        places = [index for index, tool in enumerate(config.tools or ()) if tool.tool_spec is not None]
        return errors.unusable_schema(f"toolConfig.tools.{places[place]}.toolSpec.inputSchema", reason)
