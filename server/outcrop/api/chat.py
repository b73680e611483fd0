"""A conversation in a chat template's terms: what every protocol that has messages makes of its request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from outcrop.api import errors
from outcrop.api.answer import AnswerEvents
from outcrop.api.errors import ApiError
from outcrop.api.inference import GenerationCall, Prompt
from outcrop.api.sampling import NO_EXTRAS, SamplingExtras
from outcrop.catalog.model import ServedModel
from outcrop.text.chat_template import ChatMessage
from outcrop.text.grammar import GrammarError, json_schema_grammar
from outcrop.text.tools import AUTO, Tool, ToolChoice

JSON_OBJECT: Mapping[str, Any] = {"type": "object"}
"""The schema of any JSON object."""

Place = int | Literal["answer", "tools"]
"""Where a schema stands: in the tool of this index, in all tools together, or in what the answer must be."""


def _unusable(place: Place, reason: str) -> ApiError:
    """For conversations that hold no schema."""
    return errors.unusable_schema(str(place), reason)


@dataclass(frozen=True, slots=True)
class Chat:
    """One request's conversation with a model.

    read: gives the messages; slow where they hold documents, so called in a thread, and then it may raise
    ApiError. json_schema: of the whole answer; None to leave it free. prefill: how the answer
    begins; the model goes on from there. blame: the error for a schema that cannot be used, from its place
    and the reason.
    """

    model: ServedModel
    read: Callable[[], Sequence[ChatMessage]]
    blame: Callable[[Place, str], ApiError] = _unusable
    tools: Sequence[Tool] = ()
    choice: ToolChoice = AUTO
    json_schema: Mapping[str, Any] | str | None = None
    prefill: str = ""

    def call(
        self,
        *,
        prompt_bytes: int,
        temperature: float,
        top_p: float,
        max_tokens: int | None = None,
        default_max_tokens: int | None = None,
        extras: SamplingExtras = NO_EXTRAS,
        stop: Sequence[str] = (),
        priority: int = 0,
        max_context: int | None = None,
        ignore_eos: bool = False,
        logprobs: int | None = None,
    ) -> GenerationCall:
        """The call that answers it. Parameters as of GenerationCall."""
        return GenerationCall(
            self.model,
            prepare=self.prepare,
            prompt_bytes=prompt_bytes,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            default_max_tokens=default_max_tokens,
            extras=extras,
            stop=tuple(stop),
            visible=self.model.chat_template.tool_format.markers if self.tools else (),
            priority=priority,
            max_context=max_context,
            ignore_eos=ignore_eos,
            logprobs=logprobs,
        )

    def events(self, *, call_prefix: str = "tooluse_") -> AnswerEvents:
        """What the answer grows into, with call ids that begin so."""
        parser = self.model.chat_template.tool_format.parser(self.tools) if self.tools else None
        return AnswerEvents(parser, is_json=self.json_schema is not None, call_prefix=call_prefix)

    def prepare(self) -> Prompt:
        """The prompt, within the model's context. Slow: reads documents, compiles grammars, tokenizes.
        Raises ApiError or ChatTemplateError."""
        grammar = self._grammar()
        messages = self.read()
        if self.model.exceeds_context(sum(len(message.content.encode()) for message in messages)):
            raise errors.prompt_too_long(self.model.max_model_len)
        return Prompt(self._encode(messages), grammar)

    def prepare_unbounded(self) -> Prompt:
        """The prompt, however long, and no grammar: for counting."""
        return Prompt(self._encode(self.read()))

    def _encode(self, messages: Sequence[ChatMessage]) -> list[int]:
        ids = self.model.chat_template.encode(messages, self.tools)
        return ids + self.model.tokenizer.encode(self.prefill) if self.prefill else ids

    def _grammar(self) -> str:
        """What the answer must follow. Raises ApiError, naming the schema that is no good."""
        if self.json_schema is not None:
            try:
                return self._checked(json_schema_grammar(self.json_schema))
            except GrammarError as error:
                raise self._blame("answer", error) from None
        if self.choice == AUTO and not any(tool.strict for tool in self.tools):
            return ""
        try:
            return self._checked(self.model.chat_template.tool_format.grammar(self.tools, self.choice))
        except GrammarError as error:
            raise self._of_one_tool(error) from None

    def _checked(self, grammar: str) -> str:
        if grammar:
            self.model.grammars.check(grammar)
        return grammar

    def _of_one_tool(self, error: GrammarError) -> ApiError:
        """The error of the schema that made the grammar of all tools unusable, if it is one schema's."""
        for index, tool in enumerate(self.tools):
            try:
                self._checked(json_schema_grammar(tool.schema))
            except GrammarError as own:
                return self._blame(index, own)
        return self._blame("tools", error)

    def _blame(self, place: Place, error: GrammarError) -> ApiError:
        return self.blame(place, str(error).rstrip("."))


def second_of_its_name(tools: Sequence[Tool]) -> int | None:
    """The index of the first tool that has the name of one before it."""
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        if tool.name in seen:
            return index
        seen.add(tool.name)
    return None


def text_bytes(messages: Sequence[ChatMessage]) -> int:
    """A lower bound of the UTF-8 length of a prompt with these messages: templates strip white space."""
    return sum(len(message.content.strip().encode(errors="replace")) for message in messages)
