"""Requests and answers of Converse as the SDKs for Python have them: what boto3, aioboto3 and the AWS CLI
share."""

from __future__ import annotations

from typing import Any

from harness import Result


class Requests:
    """The requests of a task."""

    def __init__(self, task: dict[str, Any]) -> None:
        self._task = task
        self._limits = {"maxTokens": task["max_tokens"], "temperature": 0}

    def _converse(self, *messages: Any, **more: Any) -> dict[str, Any]:
        return {
            "modelId": self._task["model"],
            "messages": messages or [self._user({"text": self._task["question"]})],
            "inferenceConfig": self._limits,
        } | more

    @staticmethod
    def _user(*blocks: dict[str, Any]) -> dict[str, Any]:
        return {"role": "user", "content": list(blocks)}

    def plain(self) -> dict[str, Any]:
        return self._converse()

    def system(self) -> dict[str, Any]:
        return self._converse(system=[{"text": self._task["system"]}])

    def stop(self) -> dict[str, Any]:
        return self._converse(inferenceConfig=self._limits | {"stopSequences": [self._task["stop"]]})

    def unknown_model(self) -> dict[str, Any]:
        return self._converse(modelId=self._task["unknown_model"])

    def overlong(self) -> dict[str, Any]:
        return self._converse(self._user({"text": self._task["overlong"]}))

    def throttled(self) -> dict[str, Any]:
        return self._converse(modelId=self._task["throttled_model"])

    def tool_auto(self) -> dict[str, Any]:
        return self._with_tools({"auto": {}})

    def tool_any(self) -> dict[str, Any]:
        return self._with_tools({"any": {}})

    def tool_named(self) -> dict[str, Any]:
        return self._with_tools({"tool": {"name": self._task["tool"]["name"]}})

    def _with_tools(self, choice: dict[str, Any], *messages: Any) -> dict[str, Any]:
        tool = self._task["tool"]
        spec = {
            "name": tool["name"],
            "description": tool["description"],
            "inputSchema": {"json": tool["schema"]},
        }
        question = self._user({"text": self._task["tool_question"]})
        config = {"tools": [{"toolSpec": spec}], "toolChoice": choice}
        return self._converse(question, *messages, toolConfig=config)

    def tool_result(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The turn after `answer`, in which the model called the tool."""
        message = answer["output"]["message"]
        ids = [block["toolUse"]["toolUseId"] for block in message["content"] if "toolUse" in block]
        content = [{"json": self._task["tool_result"]}]
        results = [{"toolResult": {"toolUseId": each, "content": content}} for each in ids]
        return self._with_tools({"auto": {}}, message, self._user(*results))

    def structured(self) -> dict[str, Any]:
        schema = self._task["answer"]
        structure = {"jsonSchema": {"schema": schema["json_text"], "name": schema["name"]}}
        return self._converse(outputConfig={"textFormat": {"type": "json_schema", "structure": structure}})

    def native(self) -> dict[str, Any]:
        return {"prompt": self._task["prompt"], "max_gen_len": self._task["max_tokens"], "temperature": 0}

    def count(self) -> dict[str, Any]:
        request = self._converse()
        return {
            "modelId": request["modelId"],
            "input": {"converse": {"messages": request["messages"]}},
        }


def answered(answer: dict[str, Any]) -> Result:
    """What Converse answered."""
    blocks = answer["output"]["message"]["content"]
    return {
        "text": "".join(block.get("text", "") for block in blocks),
        "calls": [
            {"name": block["toolUse"]["name"], "arguments": block["toolUse"]["input"]}
            for block in blocks
            if "toolUse" in block
        ],
        "stop": answer["stopReason"],
        "usage": [answer["usage"]["inputTokens"], answer["usage"]["outputTokens"]],
    }


class Streamed:
    """What ConverseStream sends, put together as it comes."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._calls: list[dict[str, str]] = []
        self._stop = ""
        self._usage: list[int] = []

    def add(self, event: dict[str, Any]) -> None:
        match event:
            case {"contentBlockDelta": {"delta": {"text": text}}}:
                self._pieces.append(text)
            case {"contentBlockStart": {"start": {"toolUse": {"name": name}}}}:
                self._calls.append({"name": name, "arguments": ""})
            case {"contentBlockDelta": {"delta": {"toolUse": {"input": fragment}}}}:
                self._calls[-1]["arguments"] += fragment
            case {"messageStop": {"stopReason": reason}}:
                self._stop = reason
            case {"metadata": {"usage": usage}}:
                self._usage = [usage["inputTokens"], usage["outputTokens"]]

    def result(self) -> Result:
        return {"pieces": self._pieces, "calls": self._calls, "stop": self._stop, "usage": self._usage}
