"""Meta's Llama text models as Amazon Bedrock names them.

What `ListFoundationModels` shows in demo mode, so that tools which look for the model they are configured
with find it. Context lengths and output limits are those of the managed service, not of this server.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FoundationModel:
    """One entry of the model list. context and max_output: tokens, where known."""

    model_id: str
    name: str
    provider: str
    context: int | None = None
    max_output: int | None = None


def _llama(version: str, name: str, context: int, max_output: int) -> FoundationModel:
    return FoundationModel(f"meta.llama{version}-instruct-v1:0", f"Llama {name}", "Meta", context, max_output)


LLAMA_TEXT_MODELS = (
    _llama("3-8b", "3 8B Instruct", 8_192, 2_048),
    _llama("3-70b", "3 70B Instruct", 8_192, 2_048),
    _llama("3-1-8b", "3.1 8B Instruct", 131_072, 4_096),
    _llama("3-1-70b", "3.1 70B Instruct", 131_072, 4_096),
    _llama("3-1-405b", "3.1 405B Instruct", 131_072, 4_096),
    _llama("3-2-1b", "3.2 1B Instruct", 131_072, 4_096),
    _llama("3-2-3b", "3.2 3B Instruct", 131_072, 4_096),
    _llama("3-3-70b", "3.3 70B Instruct", 131_072, 4_096),
)
