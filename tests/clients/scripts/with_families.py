"""InvokeModel as AWS's code examples call each family: boto3, the family's body, the text in its answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import boto3
from harness import Result, load_task, report

task = load_task()
client = boto3.client("bedrock-runtime", endpoint_url=task["url"])
question, limit = task["question"], task["max_tokens"]
messages = [{"role": "user", "content": question}]
chat = {"messages": messages, "max_tokens": limit, "temperature": 0}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "claude": (
        "anthropic.claude-3-haiku-20240307-v1:0",
        {
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": limit,
            "temperature": 0,
            "messages": [{"role": "user", "content": [{"type": "text", "text": question}]}],
        },
    ),
    "titan": (
        "amazon.titan-text-premier-v1:0",
        {"inputText": question, "textGenerationConfig": {"maxTokenCount": limit, "temperature": 0}},
    ),
    "command": (
        "cohere.command-r-v1:0",
        {"message": question, "max_tokens": limit, "temperature": 0},
    ),
    "jurassic": ("ai21.j2-mid-v1", {"prompt": question, "maxTokens": limit, "temperature": 0}),
    "jamba": ("ai21.jamba-1-5-large-v1:0", chat),
    "mistral": (
        "mistral.mistral-large-2402-v1:0",
        {"prompt": f"<s>[INST] {question} [/INST]", "max_tokens": limit, "temperature": 0},
    ),
    "mistral_chat": ("mistral.mistral-large-2407-v1:0", chat),
    "gpt_oss": (
        "openai.gpt-oss-120b-1:0",
        {"messages": messages, "max_completion_tokens": limit, "temperature": 0},
    ),
}
TEXT: dict[str, Callable[[dict[str, Any]], str]] = {
    "claude": lambda answer: answer["content"][0]["text"],
    "titan": lambda answer: answer["results"][0]["outputText"],
    "command": lambda answer: answer["text"],
    "jurassic": lambda answer: answer["completions"][0]["data"]["text"],
    "jamba": lambda answer: answer["choices"][0]["message"]["content"],
    "mistral": lambda answer: answer["outputs"][0]["text"],
    "mistral_chat": lambda answer: answer["choices"][0]["message"]["content"],
    "gpt_oss": lambda answer: answer["choices"][0]["message"]["content"],
}
PIECE: dict[str, Callable[[dict[str, Any]], str]] = {
    "claude": lambda chunk: chunk.get("delta", {}).get("text", ""),
    "titan": lambda chunk: chunk["outputText"],
    "command": lambda chunk: chunk.get("text", ""),
    "jamba": lambda chunk: chunk["choices"][0]["delta"].get("content", ""),
    "mistral": lambda chunk: chunk["outputs"][0]["text"],
    "mistral_chat": lambda chunk: chunk["choices"][0]["message"].get("content", ""),
    "gpt_oss": lambda chunk: chunk["choices"][0]["delta"].get("content", ""),
}


def whole(family: str) -> Result:
    model, body = MODELS[family]
    response = client.invoke_model(modelId=model, body=json.dumps(body))
    return {"text": TEXT[family](json.loads(response["body"].read()))}


def streamed(family: str) -> Result:
    model, body = MODELS[family]
    response = client.invoke_model_with_response_stream(modelId=model, body=json.dumps(body))
    chunks = [json.loads(event["chunk"]["bytes"]) for event in response["body"]]
    metrics = chunks[-1]["amazon-bedrock-invocationMetrics"]
    pieces = [piece for chunk in chunks if (piece := PIECE[family](chunk))]
    return {"pieces": pieces, "usage": [metrics["inputTokenCount"], metrics["outputTokenCount"]]}


report(
    ("boto3",),
    {family: lambda family=family: whole(family) for family in MODELS}
    | {f"{family}_stream": lambda family=family: streamed(family) for family in PIECE},
)
