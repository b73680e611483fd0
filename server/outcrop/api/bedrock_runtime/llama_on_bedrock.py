"""Strict mode: what the Llama models of Amazon Bedrock refuse, refused here with the service's words.

By default this server is a superset: it accepts what its models can do. In strict mode a request that works
here works there. The rules depend on the model that the client names, whatever model this server has under
that name; a name that Bedrock does not know is held to the most capable rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outcrop.api import errors
from outcrop.api.bedrock_runtime.cache_points import cache_points
from outcrop.api.bedrock_runtime.models import ConverseRequest, ConverseTokensRequest, ToolConfiguration
from outcrop.api.bedrock_runtime.turns import Turn
from outcrop.api.smithy import Constraints
from outcrop.catalog import identifiers
from outcrop.catalog.bedrock_models import LLAMA_TEXT_MODELS

HEADER = "x-outcrop-strict"


@dataclass(frozen=True, slots=True)
class Rules:
    """One model on Bedrock. tools: whether it calls any. on_demand: the regions in which it answers to its
    bare id, None where that is not restricted; elsewhere only an inference profile reaches it. ended: it is
    past its end of life."""

    tools: bool = True
    on_demand: tuple[str, ...] | None = None
    ended: bool = False


_RULES = {
    "meta.llama3-8b-instruct-v1:0": Rules(tools=False),
    "meta.llama3-70b-instruct-v1:0": Rules(tools=False),
    "meta.llama3-1-8b-instruct-v1:0": Rules(on_demand=("us-west-2",)),
    "meta.llama3-1-70b-instruct-v1:0": Rules(on_demand=("us-west-2",)),
    "meta.llama3-1-405b-instruct-v1:0": Rules(ended=True),
    "meta.llama3-2-1b-instruct-v1:0": Rules(ended=True),
    "meta.llama3-2-3b-instruct-v1:0": Rules(ended=True),
    "meta.llama3-2-11b-instruct-v1:0": Rules(ended=True),
    "meta.llama3-2-90b-instruct-v1:0": Rules(ended=True),
    "meta.llama3-3-70b-instruct-v1:0": Rules(on_demand=("us-east-2",)),
}
_UNKNOWN = Rules()
_CAPABILITIES = {known.model_id: known for known in LLAMA_TEXT_MODELS}


def is_strict(header: str | None, *, default: bool) -> bool:
    """Whether a request is to be held to these rules. Raises ValidationException for another value of the
    header than true or false."""
    if header is None:
        return default
    if header.lower() not in ("true", "false"):
        raise errors.validation(f"The value of the {HEADER} header must be true or false.")
    return header.lower() == "true"


def refuse_model(identifier: str, region: str) -> None:
    """Raises ResourceNotFoundException for a model past its end of life, ValidationException for one that
    needs an inference profile."""
    rules = _RULES.get(_base(identifier), _UNKNOWN)
    if rules.ended:
        raise errors.end_of_life()
    named = identifiers.resource_name(identifier)
    if rules.on_demand is not None and named == _base(identifier) and region not in rules.on_demand:
        raise errors.needs_inference_profile(named)


def refuse_max_tokens(identifier: str, max_tokens: int | None) -> None:
    known = _CAPABILITIES.get(_base(identifier))
    limit = known.max_output if known else None
    if limit is not None and max_tokens is not None and max_tokens > limit:
        raise errors.max_tokens_exceeded(limit)


def context_of(identifier: str) -> int | None:
    """Tokens that the named model's context holds on Bedrock, where that is known."""
    known = _CAPABILITIES.get(_base(identifier))
    return known.context if known else None


def refuse_request(identifier: str, request: ConverseRequest) -> None:
    """Raises ValidationException for an option that Llama on Bedrock does not have."""
    config = request.inference_config
    refuse_max_tokens(identifier, config.max_tokens if config else None)
    if config is not None and config.stop_sequences:
        raise errors.unsupported_field("stopSequences")
    if request.output_config is not None and request.output_config.text_format is not None:
        raise errors.unsupported_field("outputConfig.textFormat")


def refuse_prompt(identifier: str, request: ConverseTokensRequest, *, streaming: bool) -> None:
    """Raises ValidationException for what Llama on Bedrock does not accept in a prompt."""
    if cache_points(request):
        raise errors.unsupported_field("cachePoint")
    if request.tool_config is not None:
        if not _RULES.get(_base(identifier), _UNKNOWN).tools:
            raise errors.unsupported_tools(streaming=False)
        if streaming:
            raise errors.unsupported_tools(streaming=True)
        _refuse_tool_config(request.tool_config)


def refuse_turns(turns: Sequence[Turn]) -> None:
    """Raises ValidationException for turns that Llama on Bedrock does not accept. (That they must alternate
    is checked with the rules for all models.)"""
    constraints = Constraints()
    for turn in turns:
        kinds = {block.chosen for _, block in turn.blocks}
        constraints.one_of(("messages", turn.index, "role"), turn.role, ("user", "assistant"))
        constraints.raise_if_violated()
        if "reasoningContent" in kinds:
            raise errors.block_of_another_role("user", "reasoningContent")
        if "toolResult" in kinds and len(kinds) > 1:
            raise errors.text_with_tool_results()
        if "toolUse" in kinds and len(kinds) > 1:
            raise errors.text_with_tool_uses(f"messages.{turn.index}.content")
        for kind in ("searchResult", "citationsContent"):
            if kind in kinds:
                raise errors.unsupported_content(kind)


def _refuse_tool_config(config: ToolConfiguration) -> None:
    choice = config.tool_choice
    if choice is not None and choice.chosen != "auto":
        raise errors.unsupported_field(f"toolConfig.toolChoice.{choice.chosen}")
    for index, tool in enumerate(config.tools or ()):
        path = f"toolConfig.tools.{index}.toolSpec"
        spec = tool.tool_spec
        if spec is not None and spec.strict is not None:
            raise errors.unsupported_field(f"{path}.strict")
        schema = spec.input_schema.json if spec is not None and spec.input_schema is not None else None
        if isinstance(schema, dict) and "type" not in schema:
            raise errors.schema_not_of_object(f"{path}.inputSchema.json.type")


def _base(identifier: str) -> str:
    return identifiers.without_geography(identifiers.resource_name(identifier))
