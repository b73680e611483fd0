"""LiteLLM's translations for InvokeModel: it writes each family's body, and reads each family's answer.

Of its families these, with the parameters that the others' answers are compared by: to Command R it sends the
body of the older Command models, and for gpt-oss it knows no temperature."""

from __future__ import annotations

from typing import Any

import litellm
from harness import Result, load_task, report

task = load_task()
litellm.suppress_debug_info = True
MODELS = {
    "claude": "anthropic.claude-3-haiku-20240307-v1:0",
    "mistral": "mistral.mistral-7b-instruct-v0:2",
    "titan": "amazon.titan-text-express-v1",
}


def complete(family: str, **more: Any) -> Any:
    return litellm.completion(
        model=f"bedrock/invoke/{MODELS[family]}",
        messages=[{"role": "user", "content": task["question"]}],
        api_base=task["url"],
        temperature=0,
        max_tokens=task["max_tokens"],
        max_retries=0,
        **more,
    )


def whole(family: str) -> Result:
    return {"text": complete(family).choices[0].message.content}


def streamed(family: str) -> Result:
    chunks = complete(family, stream=True)
    return {"pieces": [text for chunk in chunks if (text := chunk.choices[0].delta.content)]}


report(
    ("litellm",),
    {family: lambda family=family: whole(family) for family in MODELS}
    | {f"{family}_stream": lambda family=family: streamed(family) for family in MODELS},
)
