"""Real vLLM engines that die under open streams: the streams end as they would have in peace."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import vllm_engine as vllm
from engine_kinds import IN_PROCESS
from serving import ANY_MODEL, Served, eventually, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * vllm.START)]

TOOL = {
    "name": "note",
    "inputSchema": {
        "json": {
            "type": "object",
            "properties": {"text": {"type": "string", "minLength": 80, "maxLength": 120}},
            "required": ["text"],
        }
    },
}
CALLS: dict[str, dict[str, Any]] = {
    # Its tokens so far go into the prompt.
    "text": {},
    # It is made again: the grammar, and what was said, begin with the answer.
    "a call": {"toolConfig": {"tools": [{"toolSpec": TOOL}], "toolChoice": {"any": {}}}},
    "penalties": {"additionalModelRequestFields": {"presence_penalty": 1.0, "frequency_penalty": 0.5}},
}


def ask(served: Served, members: dict[str, Any], begun: Callable[[], object] = lambda: None) -> str:
    """Everything that the answer says, and how it ends. begun: called when some of it is here."""
    said, pieces = "", 0
    with closing(served.client(read_timeout=vllm.START)) as client:
        stream = client.converse_stream(
            modelId=ANY_MODEL,
            messages=[{"role": "user", "content": [{"text": "Tell me about the sea."}]}],
            inferenceConfig={"maxTokens": 80, "temperature": 0},
            **members,
        )["stream"]
        for event in stream:
            if "contentBlockDelta" in event:
                delta = event["contentBlockDelta"]["delta"]
                said += delta.get("text") or delta["toolUse"]["input"]
                pieces += 1
                if pieces == 5:
                    begun()
            elif "messageStop" in event:
                said += f" -- {event['messageStop']['stopReason']}"
    return said


def in_peace(served: Served) -> dict[str, str]:
    return {name: ask(served, members) for name, members in CALLS.items()}


def test_an_engine_process_that_dies(tmp_path: Path) -> None:
    with (
        vllm.serving_options(IN_PROCESS, tmp_path) as options,
        serving(tmp_path, *options, patience=vllm.START) as served,
    ):
        wanted = in_peace(served)
        for number, (name, members) in enumerate(CALLS.items(), 1):
            children = served.engines()[0].children(recursive=True)
            assert ask(served, members, lambda: served.signal_engine(signal.SIGKILL)) == wanted[name], name
            assert served.restarts == number
            assert not any(child.is_running() and child.status() != "zombie" for child in children)
        eventually(served.is_idle, "an idle engine")


def test_a_server_that_dies(tmp_path: Path) -> None:
    with vllm.vllm_server(tmp_path) as server:
        options = ("--model", str(vllm.checkpoint()), "--backend", "vllm", "--url", server.url)
        with serving(tmp_path, *options, patience=vllm.START) as served:
            wanted = in_peace(served)

            def replace_server() -> None:
                server.kill()
                server.start(wait=False)

            for name in ("text", "a call"):
                assert ask(served, CALLS[name], replace_server) == wanted[name], name
            eventually(served.is_idle, "an idle engine")
