"""What `outcrop serve` shows a person: how far loading is, how to call the server, what went wrong."""

from __future__ import annotations

import time
from typing import TextIO

_ANY_MODEL = "meta.llama3-1-8b-instruct-v1:0"

_BANNER = """
Outcrop is ready on {url}

boto3:
  import boto3
  client = boto3.client("bedrock-runtime", endpoint_url="{url}", region_name="{region}",
                        aws_access_key_id="local", aws_secret_access_key="local")
  answer = client.converse_stream(modelId="{model}",
                                  messages=[{{"role": "user", "content": [{{"text": "Hello!"}}]}}])
  for event in answer["stream"]:
      print(event.get("contentBlockDelta", {{}}).get("delta", {{}}).get("text", ""), end="", flush=True)

AWS CLI:
  AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local aws bedrock-runtime converse \\
    --endpoint-url {url} --region {region} --model-id {model} \\
    --messages '[{{"role": "user", "content": [{{"text": "Hello!"}}]}}]'

curl:
  curl -s {url}/model/{model}/converse -H 'Content-Type: application/json' \\
    -d '{{"messages": [{{"role": "user", "content": [{{"text": "Hello!"}}]}}]}}'
"""


class Display:
    """Writes to `stream`: one line that is rewritten on a terminal, and few lines anywhere else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._begun = time.monotonic()
        self._shown: tuple[str, int] | None = None

    def progress(self, stage: str, fraction: float) -> None:
        """A stage of loading is `fraction` done, 0 to 1."""
        step = int(fraction * (50 if self._live else 2))
        if self._shown == (stage, step):
            return
        self._shown = (stage, step)
        elapsed = time.monotonic() - self._begun
        line = f"{stage:<8} {fraction:4.0%}  {elapsed:5.1f} s"
        if self._live:
            bar = "#" * int(fraction * 30)
            self._write(f"\r{line}  [{bar:<30}]" + ("\n" if fraction >= 1 else ""))
        else:
            self._write(line + "\n")

    def ready(self, url: str, region: str, model: str | None) -> None:
        """The server answers: how to call it. model: the id it wants; None if any will do."""
        model = model or _ANY_MODEL
        self._write(_BANNER.format(url=url, region=region, model=model) + "\n")

    def error(self, message: str) -> None:
        self._write(f"outcrop: {message}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
