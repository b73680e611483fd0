"""What a Converse prompt is made of, and how it is made: shared by Converse and CountTokens."""

from __future__ import annotations

from dataclasses import dataclass

from outcrop.api import errors
from outcrop.api.bedrock_runtime import llama_on_bedrock, prompt
from outcrop.api.bedrock_runtime.models import ConverseTokensRequest, ToolConfiguration
from outcrop.api.bedrock_runtime.rules import check_conversation
from outcrop.api.bedrock_runtime.turns import Turn, turns_of
from outcrop.api.errors import ApiError
from outcrop.api.inference import Prompt
from outcrop.catalog.model import ServedModel
from outcrop.text.grammar import GrammarError, json_schema_grammar
from outcrop.text.tools import AUTO, Tool, ToolChoice

_TEXT_FORMAT = "outputConfig.textFormat.structure.jsonSchema.schema"


@dataclass(frozen=True, slots=True)
class Target:
    """The model that a request is for. identifier: as the client named it. strict: whether the request is
    held to what that model accepts on Bedrock."""

    model: ServedModel
    identifier: str
    strict: bool = False


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

    def prepare(self) -> Prompt:
        """The prompt, within the model's context. Slow: reads documents, compiles grammars, tokenizes.
        Raises ValidationException or ChatTemplateError."""
        model = self.target.model
        grammar = self._grammar()
        messages = prompt.chat_messages(self.request, self.turns)
        if model.exceeds_context(sum(len(message.content.encode()) for message in messages)):
            raise errors.prompt_too_long(model.max_model_len)
        return Prompt(model.chat_template.encode(messages, self.tools), grammar)

    def prepare_unbounded(self) -> Prompt:
        """The prompt, however long, and no grammar: for counting."""
        messages = prompt.chat_messages(self.request, self.turns)
        return Prompt(self.target.model.chat_template.encode(messages, self.tools))

    def _grammar(self) -> str:
        """What the answer must follow. Raises ValidationException naming the schema that is no good."""
        if self.json_schema is not None:
            try:
                return self._checked(json_schema_grammar(self.json_schema))
            except GrammarError as error:
                raise _unusable(_TEXT_FORMAT, error) from None
        if self.choice == AUTO and not any(tool.strict for tool in self.tools):
            return ""
        try:
            return self._checked(self.target.model.chat_template.tool_format.grammar(self.tools, self.choice))
        except GrammarError as error:
            raise self._blame(error) from None

    def _checked(self, grammar: str) -> str:
        if grammar:
            self.target.model.grammars.check(grammar)
        return grammar

    def _blame(self, error: GrammarError) -> ApiError:
        """The error of the schema that made the grammar of all tools unusable, if it is one schema's."""
        config = self.request.tool_config
        assert config is not None
        for index, tool in _indexed(config, self.tools):
            try:
                self._checked(json_schema_grammar(tool.schema))
            except GrammarError as own:
                return _unusable(f"toolConfig.tools.{index}.toolSpec.inputSchema", own)
        return _unusable("toolConfig.tools", error)


def _indexed(config: ToolConfiguration, tools: list[Tool]) -> list[tuple[int, Tool]]:
    """The tools with their places in the request, where cache points may stand between them."""
    places = [index for index, tool in enumerate(config.tools or ()) if tool.tool_spec is not None]
    return list(zip(places, tools, strict=True))


def _unusable(path: str, error: GrammarError) -> ApiError:
    return errors.unusable_schema(path, str(error).rstrip("."))
