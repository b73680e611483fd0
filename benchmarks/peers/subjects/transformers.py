"""Hugging Face's `generate`, behind a server of this benchmark's.

What has come when it is idle is one batch, left-padded; what comes meanwhile waits. Its own server
(`transformers serve`) batches continuously but takes no token ids.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, ClassVar

from benchmarks.peers.completions_server import Generator, Prompt, serve
from benchmarks.peers.peer import Peer

_GATHER_SECONDS = 0.02  # calls made at once arrive within this time of each other


class Transformers(Peer):
    name = "transformers"
    package = "transformers"
    requirements = ("transformers==5.23.0", "torch==2.13.0")
    precisions: ClassVar = {"bf16": "bfloat16"}

    def command(self, port: int) -> list[str]:
        module = "benchmarks.peers.subjects.transformers"
        return [str(self.python), "-m", module, str(self.model.directory), str(port)]

    def environment(self) -> dict[str, str]:
        return {"HF_HUB_OFFLINE": "1"}


class _Generate(Generator):
    def __init__(self, folder: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self._torch = torch
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)

    def run(self, take: Callable[[bool], list[Prompt]]) -> None:
        while True:
            batch = take(True)
            time.sleep(_GATHER_SECONDS)
            self._generate(batch + take(False))

    def _generate(self, batch: list[Prompt]) -> None:
        width = max(len(prompt.tokens) for prompt in batch)
        ids = self._torch.tensor([[0] * (width - len(p.tokens)) + p.tokens for p in batch])
        mask = self._torch.tensor([[0] * (width - len(p.tokens)) + [1] * len(p.tokens) for p in batch])
        with self._torch.inference_mode():
            self._model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=max(prompt.max_tokens for prompt in batch),
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                streamer=_Streamer(batch),
            )


class _Streamer:
    """What `generate` tells of the prompts and then of each step's tokens."""

    def __init__(self, batch: list[Prompt]) -> None:
        self._batch, self._steps = batch, -1

    def put(self, tokens: Any) -> None:
        self._steps += 1
        for prompt in self._batch:
            if 0 < self._steps <= prompt.max_tokens:
                prompt.emit(1)

    def end(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    serve(_Generate(options.folder), options.port)


if __name__ == "__main__":
    main()
