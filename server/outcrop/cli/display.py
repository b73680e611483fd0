"""What `outcrop serve` shows a person: how far loading is, how to call the server, what went wrong."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from typing import Literal, TextIO
from urllib.parse import quote

_ANY_MODEL = "us.meta.llama3-1-8b-instruct-v1:0"
"""An inference profile: in strict mode, as on Bedrock, the bare id is good in one region only."""

Access = Literal["open", "keys", "no keys"]

_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where to find, from the same machine, a server that listens on every address."""

# Nothing is indented that is to be pasted: Python would refuse it.
_BANNER = """
Outcrop is ready on {url}

{access}Three ways to call it:

# Python, with boto3
import boto3
client = boto3.client("bedrock-runtime", endpoint_url="{url}", region_name="{region}"{python_key})
answer = client.converse_stream(modelId={python_model},
                                messages=[{{"role": "user", "content": [{{"text": "Hello!"}}]}}])
for event in answer["stream"]:
    if "contentBlockDelta" in event:
        print(event["contentBlockDelta"]["delta"]["text"], end="", flush=True)

# AWS CLI
{shell_key}aws bedrock-runtime converse \\
  --endpoint-url {url} --region {region} --model-id {shell_model} \\
  --messages '[{{"role": "user", "content": [{{"text": "Hello!"}}]}}]'

# curl
curl -sS {shell_path} -w '\\n' \\{curl_key}
  -H 'Content-Type: application/json' \\
  -d '{{"messages": [{{"role": "user", "content": [{{"text": "Hello!"}}]}}]}}'
"""


# Where nobody is asked for a key the AWS clients still want one to sign with.
_OPEN = {
    "access": "",
    "python_key": ',\n                      aws_access_key_id="local", aws_secret_access_key="local"',
    "shell_key": "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local ",
    "curl_key": "",
}
_CLOSED = {
    "access": "Callers need a key. To make one and put it into a shell's environment:\n"
    '{note}eval "$(outcrop keys create)"\n\n',
    "python_key": "",
    "shell_key": "",
    "curl_key": '\n  -H "Authorization: Bearer $AWS_BEARER_TOKEN_BEDROCK" \\',
}


class Display:
    """Writes to `stream`: one line that is rewritten on a terminal, and few lines anywhere else. models: the
    id of each, told apart only where there are several."""

    def __init__(self, stream: TextIO, models: Sequence[str] = ("",)) -> None:
        self._stream = stream
        self._labels = [f"{model}: " for model in models] if len(models) > 1 else [""]
        self._live = stream.isatty() and len(models) == 1
        self._begun = time.monotonic()
        self._shown: dict[int, tuple[str, int]] = {}

    def progress(self, model: int, stage: str, fraction: float) -> None:
        """A stage of loading a model is `fraction` done, 0 to 1."""
        step = int(fraction * (50 if self._live else 2))
        if self._shown.get(model) == (stage, step):
            return
        self._shown[model] = (stage, step)
        elapsed = time.monotonic() - self._begun
        line = f"{self._labels[model]}{stage:<8} {fraction:4.0%}  {elapsed:5.1f} s"
        if self._live:
            bar = "#" * int(fraction * 30)
            self._write(f"\r{line}  [{bar:<30}]" + ("\n" if fraction >= 1 else ""))
        else:
            self._write(line + "\n")

    def ready(
        self,
        host: str,
        port: int,
        region: str,
        model: str | None,
        *,
        access: Access = "open",
        scheme: str = "http",
    ) -> None:
        """The server answers: how to call it. model: the id it wants; None if any will do. access: whether
        callers need a key, and whether there is one yet."""
        reachable = _LOOPBACK_OF.get(host, host)
        authority = f"[{reachable}]:{port}" if ":" in reachable else f"{reachable}:{port}"
        url = f"{scheme}://{authority}"
        model = model or _ANY_MODEL
        texts = dict(_OPEN if access == "open" else _CLOSED)
        note = "# (no key exists yet: nobody can call this server)\n" if access == "no keys" else ""
        texts["access"] = texts["access"].replace("{note}", note)
        banner = _BANNER.format(
            **texts,
            url=url,
            region=region,
            python_model=json.dumps(model),
            shell_model=shlex.quote(model),
            shell_path=shlex.quote(f"{url}/model/{quote(model, safe=':')}/converse"),
        )
        self._write(banner + "\n")

    def error(self, message: str) -> None:
        self._write(f"outcrop: {message}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
