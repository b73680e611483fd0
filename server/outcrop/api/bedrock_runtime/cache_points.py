"""Cache points of a request, and what its answer says of the prefix cache.

The prefix cache works on its own; cache points only ask to be told what it did. What is served from it is
told apart from the input tokens for requests that mark cache points, and for no others.
"""

from __future__ import annotations

from collections.abc import Iterator

from outcrop.api.bedrock_runtime.content import CachePointBlock
from outcrop.api.bedrock_runtime.models import ConverseTokensRequest
from outcrop.catalog.model import TextDelta


def cache_points(request: ConverseTokensRequest) -> list[CachePointBlock]:
    """In the order of the prompt: tools, system, messages."""
    return [point for point in _cache_points(request) if point is not None]


def usage(points: list[CachePointBlock], last: TextDelta) -> dict[str, object]:
    """The TokenUsage of an answer. The tokens written are reported under the last time to live that was
    asked for: the cache keeps what it has room for, whatever its age."""
    counts: dict[str, object] = {
        "inputTokens": last.prompt,
        "outputTokens": last.generated,
        "totalTokens": last.prompt + last.generated,
    }
    if points:
        counts["inputTokens"] = last.prompt - last.cached - last.stored
        counts["cacheReadInputTokens"] = last.cached
        counts["cacheWriteInputTokens"] = last.stored
        if ttls := [point.ttl for point in points if point.ttl is not None]:
            counts["cacheDetails"] = [{"ttl": ttls[-1], "inputTokens": last.stored}]
    return counts


def _cache_points(request: ConverseTokensRequest) -> Iterator[CachePointBlock | None]:
    for tool in (request.tool_config.tools if request.tool_config else None) or ():
        yield tool.cache_point
    for system in request.system or ():
        yield system.cache_point
    for message in request.messages or ():
        yield from (block.cache_point for block in message.content or ())
