"""What a Converse request must satisfy before a model sees it.

Three passes, each reported in the service's words: the constraints of the service model, what this model
does not support, and the rules of a conversation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from outcrop.api import errors
from outcrop.api.bedrock_runtime.models import (
    CachePoint,
    ContentBlock,
    ConverseRequest,
    Message,
    SystemContentBlock,
    given_members,
    has_content,
    is_given,
    member_names,
)
from outcrop.api.errors import ApiError
from outcrop.api.smithy import Constraints

ROLES = ("user", "assistant")
LATENCIES = ("standard", "optimized")
SERVICE_TIERS = ("priority", "default", "flex", "reserved")
_MAX_STOP_CHARACTERS = 25_000  # together; matching them costs memory in proportion
_CACHE_TTLS = ("5m", "1h")
_METADATA_KEY = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,-.]{1,256}")
_METADATA_VALUE = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,-.]{0,256}")
_MEDIA = ("image", "document", "video", "audio")
_TOOLS = ("toolUse", "toolResult")
_JSON_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+")


def validate(request: ConverseRequest, *, streaming: bool) -> None:
    """Raises ValidationException with everything that one pass found, or the first thing of a later one."""
    constraints = Constraints()
    _check_messages(constraints, request)
    _check_inference(constraints, request)
    _check_options(constraints, request)
    constraints.raise_if_violated()
    _refuse_unsupported(request, streaming=streaming)
    _check_stop_sequences(request)
    _check_system(request.system or [])
    _check_conversation(request.messages or [])


# -- constraints of the service model --------------------------------------------------------------


def _check_messages(constraints: Constraints, request: ConverseRequest) -> None:
    for number, message in enumerate(request.messages or [], start=1):
        path = f"messages.{number}.member"
        constraints.required(f"{path}.role", message.role)
        constraints.one_of(f"{path}.role", message.role, ROLES)
        constraints.required(f"{path}.content", message.content)
        for position, block in enumerate(message.content or [], start=1):
            _check_cache_point(constraints, f"{path}.content.{position}.member.cachePoint", block.cache_point)
    for number, system_block in enumerate(request.system or [], start=1):
        path = f"system.{number}.member"
        constraints.min_length(f"{path}.text", system_block.text, 1)
        _check_cache_point(constraints, f"{path}.cachePoint", system_block.cache_point)


def _check_cache_point(constraints: Constraints, path: str, cache_point: CachePoint | None) -> None:
    if cache_point is not None:
        constraints.required(f"{path}.type", cache_point.type)
        constraints.one_of(f"{path}.type", cache_point.type, ("default",))
        constraints.one_of(f"{path}.ttl", cache_point.ttl, _CACHE_TTLS)


def _check_inference(constraints: Constraints, request: ConverseRequest) -> None:
    config = request.inference_config
    if config is None:
        return
    constraints.minimum("inferenceConfig.maxTokens", config.max_tokens, 1)
    for name, value in (("temperature", config.temperature), ("topP", config.top_p)):
        constraints.minimum(f"inferenceConfig.{name}", value, 0)
        constraints.maximum(f"inferenceConfig.{name}", value, 1)
    constraints.size("inferenceConfig.stopSequences", config.stop_sequences, 0, 2500)
    for number, sequence in enumerate(config.stop_sequences or [], start=1):
        constraints.min_length(f"inferenceConfig.stopSequences.{number}.member", sequence, 1)


def _check_options(constraints: Constraints, request: ConverseRequest) -> None:
    metadata = request.request_metadata
    constraints.size("requestMetadata", metadata, 1, 16)
    for key, value in (metadata or {}).items():
        constraints.matches("requestMetadata", key, _METADATA_KEY)
        constraints.matches("requestMetadata", value, _METADATA_VALUE)
    if request.performance_config is not None:
        constraints.one_of("performanceConfig.latency", request.performance_config.latency, LATENCIES)
    if request.service_tier is not None:
        constraints.required("serviceTier.type", request.service_tier.type)
        constraints.one_of("serviceTier.type", request.service_tier.type, SERVICE_TIERS)
    paths = request.additional_model_response_field_paths
    constraints.size("additionalModelResponseFieldPaths", paths, 0, 10)
    for number, pointer in enumerate(paths or [], start=1):
        path = f"additionalModelResponseFieldPaths.{number}.member"
        constraints.size(path, pointer, 1, 256)
        if pointer:
            constraints.matches(path, pointer, _JSON_POINTER)


# -- what this model does not support --------------------------------------------------------------


def _refuse_unsupported(request: ConverseRequest, *, streaming: bool) -> None:
    if has_content(request.tool_config):
        raise errors.unsupported_tools(streaming=streaming)
    if has_content(request.guardrail_config):
        raise errors.unsupported_field("guardrailConfig")
    if has_content(request.prompt_variables):
        raise errors.unsupported_field("promptVariables")
    if request.output_config is not None:
        for name in given_members(request.output_config):
            raise errors.unsupported_field(f"outputConfig.{name}")


def _unsupported_block(member: str) -> ApiError:
    if member in _MEDIA:
        return errors.unsupported_content(member)
    if member in _TOOLS:
        return errors.tool_blocks_without_config()
    return errors.unsupported_field(member)


# -- rules of a conversation -----------------------------------------------------------------------


def _check_stop_sequences(request: ConverseRequest) -> None:
    config = request.inference_config
    if config is not None and sum(map(len, config.stop_sequences or [])) > _MAX_STOP_CHARACTERS:
        raise errors.stop_sequences_too_long(_MAX_STOP_CHARACTERS)


def _check_system(blocks: Sequence[SystemContentBlock]) -> None:
    for index, block in enumerate(blocks):
        _check_block(block, f"system.{index}")


def _check_conversation(messages: Sequence[Message]) -> None:
    if not messages or messages[0].role != "user":
        raise errors.must_start_with_user()
    for index, message in enumerate(messages):
        if message.role != ROLES[index % 2]:
            raise errors.must_alternate()
        for position, block in enumerate(message.content or []):
            _check_block(block, f"messages.{index}.content.{position}")
        if not any(is_given(block.text) for block in message.content or []):
            raise errors.empty_content(f"messages.{index}")
    if messages[-1].role != "user":
        raise errors.must_end_with_user()


def _check_block(block: ContentBlock | SystemContentBlock, path: str) -> None:
    shape = type(block)
    members = given_members(block)
    if len(members) != 1:
        raise errors.union_not_one(shape.__name__, path, member_names(shape), len(members))
    if members[0] not in ("text", "cachePoint"):
        raise _unsupported_block(members[0])
    if block.text is not None and not block.text.strip():
        raise errors.blank_text(shape.__name__, path)
