"""Stored prompts: files that a call names by a prompt ARN instead of a model.

Each is a JSON file in the shape of GetPrompt's answer, so that `aws bedrock-agent get-prompt` exports what
this server imports.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from outcrop.api import errors
from outcrop.api.bedrock_runtime.content import Message, SystemContentBlock
from outcrop.api.bedrock_runtime.models import (
    ConverseRequest,
    InferenceConfiguration,
    ToolConfiguration,
)
from outcrop.api.shapes import Shape

DRAFT = "DRAFT"
_VARIABLE = re.compile(r"\{\{\s*([0-9a-zA-Z_-]{1,100})\s*\}\}")


class InputVariable(Shape):
    name: str


class TextTemplate(Shape):
    text: str
    input_variables: list[InputVariable] = msgspec.field(default_factory=list)


class ChatTemplate(Shape):
    messages: list[Message]
    system: list[SystemContentBlock] | None = None
    tool_configuration: ToolConfiguration | None = None
    input_variables: list[InputVariable] = msgspec.field(default_factory=list)


class TemplateConfiguration(Shape):
    text: TextTemplate | None = None
    chat: ChatTemplate | None = None


class PromptInference(Shape):
    text: InferenceConfiguration | None = None


class Variant(Shape):
    name: str
    template_configuration: TemplateConfiguration
    model_id: str | None = None
    inference_configuration: PromptInference | None = None
    additional_model_request_fields: Any = None


class StoredPrompt(Shape):
    """One version of a prompt, with its variants, of which the default one is used."""

    id: str
    variants: list[Variant]
    version: str = DRAFT
    default_variant: str | None = None

    def variant(self) -> Variant:
        """The default variant, or the only one. Raises ValueError."""
        for variant in self.variants:
            if self.default_variant in (None, variant.name):
                return variant
        raise ValueError(f"it has no variant {self.default_variant!r}")


class PromptLibrary:
    """The prompts of one folder, by id and version."""

    def __init__(self, folder: Path | None) -> None:
        """Reads every `*.json` of the folder. Raises ValueError naming the file that is no prompt."""
        self._prompts: dict[tuple[str, str], StoredPrompt] = {}
        for path in sorted(folder.glob("*.json")) if folder else ():
            prompt = _load(path)
            self._prompts[prompt.id, prompt.version] = prompt

    def find(self, prompt_id: str, version: str | None) -> Variant:
        """version: None for the draft. Raises ResourceNotFoundException."""
        prompt = self._prompts.get((prompt_id, version or DRAFT))
        if prompt is None:
            raise errors.unknown_prompt(prompt_id, version or DRAFT)
        return prompt.variant()


def fill_in(variant: Variant, request: ConverseRequest) -> ConverseRequest:
    """The request that a prompt stands for: its turns, then those of the request. Raises ValidationException
    for variables without values, and for fields that only the prompt may set."""
    for name in ("inferenceConfig", "system", "toolConfig", "additionalModelRequestFields"):
        if getattr(request, _ATTRIBUTES[name]) is not None:
            raise errors.set_by_prompt(name)
    given = request.prompt_variables or {}
    values = {name: value.text or "" for name, value in given.items()}
    template = variant.template_configuration
    wanted = template.chat.input_variables if template.chat else _text_template(template).input_variables
    if missing := [each.name for each in wanted if each.name not in values]:
        raise errors.missing_prompt_variables(missing)
    if template.chat is not None:
        filled = _substitute(msgspec.to_builtins(template.chat, builtin_types=(bytes,)), values)
        chat = msgspec.convert(filled, ChatTemplate)
    else:
        text = _substitute(_text_template(template).text, values)
        block = msgspec.convert({"role": "user", "content": [{"text": text}]}, Message)
        chat = ChatTemplate(messages=[block])
    inference = variant.inference_configuration
    return msgspec.structs.replace(
        request,
        messages=[*chat.messages, *(request.messages or ())],
        system=chat.system,
        tool_config=chat.tool_configuration,
        inference_config=inference.text if inference else None,
        additional_model_request_fields=variant.additional_model_request_fields,
        prompt_variables=None,
    )


_ATTRIBUTES = {field.encode_name: field.name for field in msgspec.structs.fields(ConverseRequest)}


def _load(path: Path) -> StoredPrompt:
    try:
        prompt = msgspec.json.decode(path.read_bytes(), type=StoredPrompt)
        template = prompt.variant().template_configuration
        if (template.text is None) == (template.chat is None):
            raise ValueError("its template is neither text nor chat")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"stored prompt {path}: {error}") from None
    return prompt


def _text_template(template: TemplateConfiguration) -> TextTemplate:
    assert template.text is not None
    return template.text


def _substitute(value: Any, values: Mapping[str, str]) -> Any:
    """Every text in a value with its variables replaced; one that has no value stays as it is written."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: values.get(match[1], match[0]), value)
    if isinstance(value, list):
        return [_substitute(each, values) for each in value]
    if isinstance(value, dict):
        return {key: _substitute(each, values) for key, each in value.items()}
    return value
