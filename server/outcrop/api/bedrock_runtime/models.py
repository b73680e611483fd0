"""Shapes of the requests of Converse, ConverseStream and CountTokens."""

from __future__ import annotations

import re
from typing import Annotated, Any

from outcrop.api.bedrock_runtime.content import TOOL_NAME, CachePointBlock, Message, SystemContentBlock
from outcrop.api.shapes import REQUIRED, Must, Shape, Union

LATENCIES = ("standard", "optimized")
SERVICE_TIERS = ("priority", "default", "flex", "reserved")
GUARDRAIL_IDENTIFIER = Must(
    size=(0, 2048),
    pattern=re.compile(
        "(|([a-z0-9]+)|(arn:aws(-[^:]+)?:bedrock:[a-z0-9-]{1,20}:[0-9]{12}:guardrail/[a-z0-9]+))"
    ),
)
GUARDRAIL_VERSION = Must(pattern=re.compile("(|([1-9][0-9]{0,7})|(DRAFT))"))

_UNIT = Must(value=(0, 1))
_TEXT = Must(size=(1, None))
_METADATA_KEY = Must(size=(1, 256), pattern=re.compile(r"[a-zA-Z0-9\s:_@$#=/+,-.]{1,256}"))
_METADATA_VALUE = Must(size=(0, 256), pattern=re.compile(r"[a-zA-Z0-9\s:_@$#=/+,-.]{0,256}"))
_JSON_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+")
MAX_INVOKE_BODY = 25_000_000
MAX_STOP_SEQUENCES = 2500


class InferenceConfiguration(Shape):
    max_tokens: Annotated[int | None, Must(value=(1, None))] = None
    temperature: Annotated[float | None, _UNIT] = None
    top_p: Annotated[float | None, _UNIT] = None
    stop_sequences: Annotated[list[Annotated[str, _TEXT]] | None, Must(size=(0, MAX_STOP_SEQUENCES))] = None


class ToolInputSchema(Union):
    json: Any = None


class ToolSpecification(Shape):
    name: Annotated[str | None, TOOL_NAME] = None
    description: Annotated[str | None, _TEXT] = None
    input_schema: Annotated[ToolInputSchema | None, REQUIRED] = None
    strict: bool | None = None


class SystemTool(Shape):
    name: Annotated[str | None, TOOL_NAME] = None


class Tool(Union):
    tool_spec: ToolSpecification | None = None
    system_tool: SystemTool | None = None
    cache_point: CachePointBlock | None = None


class AutoToolChoice(Shape):
    """The model may call tools."""


class AnyToolChoice(Shape):
    """The model must call a tool."""


class SpecificToolChoice(Shape):
    name: Annotated[str | None, TOOL_NAME] = None


class ToolChoice(Union):
    auto: AutoToolChoice | None = None
    any: AnyToolChoice | None = None
    tool: SpecificToolChoice | None = None


class ToolConfiguration(Shape):
    tools: Annotated[list[Tool] | None, Must(required=True, size=(1, None))] = None
    tool_choice: ToolChoice | None = None


class GuardrailStreamConfiguration(Shape):
    """Converse's GuardrailConfiguration, and the processing mode that only ConverseStream knows."""

    guardrail_identifier: Annotated[str | None, GUARDRAIL_IDENTIFIER] = None
    guardrail_version: Annotated[str | None, GUARDRAIL_VERSION] = None
    trace: Annotated[str | None, Must(one_of=("enabled", "disabled", "enabled_full"))] = None
    stream_processing_mode: Annotated[str | None, Must(one_of=("sync", "async"))] = None


class PromptVariableValues(Union):
    text: str | None = None


class PerformanceConfiguration(Shape):
    latency: Annotated[str | None, Must(one_of=LATENCIES)] = None


class ServiceTier(Shape):
    type: Annotated[str | None, Must(required=True, one_of=SERVICE_TIERS)] = None


class JsonSchemaDefinition(Shape):
    schema: Annotated[str | None, REQUIRED] = None
    name: str | None = None
    description: str | None = None


class OutputFormatStructure(Union):
    json_schema: JsonSchemaDefinition | None = None


class OutputFormat(Shape):
    type: Annotated[str | None, Must(required=True, one_of=("json_schema",))] = None
    structure: Annotated[OutputFormatStructure | None, REQUIRED] = None


class OutputConfig(Shape):
    text_format: OutputFormat | None = None
    effort: Annotated[str | None, Must(size=(0, 16))] = None


class ConverseTokensRequest(Shape):
    """What a prompt is made of."""

    messages: list[Message] | None = None
    system: list[SystemContentBlock] | None = None
    tool_config: ToolConfiguration | None = None
    additional_model_request_fields: Any = None


class ConverseRequest(ConverseTokensRequest):
    """ConverseRequest and ConverseStreamRequest, less the model id of the path."""

    inference_config: InferenceConfiguration | None = None
    guardrail_config: GuardrailStreamConfiguration | None = None
    prompt_variables: dict[str, PromptVariableValues] | None = None
    additional_model_response_field_paths: Annotated[
        list[Annotated[str, Must(size=(1, 256), pattern=_JSON_POINTER)]] | None, Must(size=(0, 10))
    ] = None
    request_metadata: Annotated[
        dict[Annotated[str, _METADATA_KEY], Annotated[str, _METADATA_VALUE]] | None, Must(size=(1, 16))
    ] = None
    performance_config: PerformanceConfiguration | None = None
    service_tier: ServiceTier | None = None
    output_config: OutputConfig | None = None


class InvokeModelTokensRequest(Shape):
    body: Annotated[bytes | None, Must(required=True, size=(0, MAX_INVOKE_BODY))] = None


class CountTokensInput(Union):
    invoke_model: InvokeModelTokensRequest | None = None
    converse: ConverseTokensRequest | None = None


class CountTokensRequest(Shape):
    input: Annotated[CountTokensInput | None, REQUIRED] = None
