"""LangChain's standard tests of a chat model, on ChatBedrockConverse. They run in the environment of the
client; AWS_ENDPOINT_URL and the credentials come from the environment."""

from __future__ import annotations

import os
from typing import Any

from langchain_aws import ChatBedrockConverse
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests

MODEL = "meta.llama3-1-8b-instruct-v1:0"


class TestStandard(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatBedrockConverse

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": MODEL,
            "base_url": os.environ["AWS_ENDPOINT_URL"],
            # LangChain's own table of models has only "auto" for Llama.
            "supports_tool_choice_values": ("auto", "any", "tool"),
        }

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {"temperature": 0, "max_tokens": 100, "stop": [], "max_retries": 0}

    @property
    def supports_model_override(self) -> bool:
        # ChatBedrockConverse takes no `model` with a call.
        return False
