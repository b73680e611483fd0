"""What the API's own code does for one token, less the event loop, the HTTP server and the kernel.

python benchmarks/api/token_work.py [--rounds 5]

One long answer from an engine that has every token ready, read at each layer in turn: the engine's deltas,
text (detokenizer and stop strings), the answer (admission, quotas and metrics), and the frames of both
protocols. CPU time of the thread; each layer holds those before it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import uvloop

from outcrop.api.admission import ApiLimits
from outcrop.api.auth.principal import LOCAL
from outcrop.api.bedrock_runtime import converse
from outcrop.api.bedrock_runtime.converse import Conversation
from outcrop.api.bedrock_runtime.prompt_source import Target
from outcrop.api.bedrock_runtime.timing import Stopwatch
from outcrop.api.caller import Caller
from outcrop.api.inference import Inference
from outcrop.api.observer import Observer
from outcrop.api.openai import completion_request
from outcrop.api.openai.completions import Completion
from outcrop.catalog.catalog import Catalog
from outcrop.catalog.model import ServedModel, TextDelta
from outcrop.engine.client import (
    EngineClient,
    EngineStats,
    FinishReason,
    GenerationDelta,
    GenerationRequest,
    SamplingParams,
)
from outcrop.telemetry.metrics import Metrics
from outcrop.text.chat_template import load_chat_template
from outcrop.text.tokenizer import load_tokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))

from load.server import DEMO

TOKENS = 20_000
MODEL = "meta.llama3-1-8b-instruct-v1:0"
STOP = ("\n\nUser:", "</answer>")


class ReadyEngine(EngineClient):
    """Has its tokens before it is asked."""

    ready = True
    max_model_len = 10 * TOKENS
    stats = EngineStats()
    restarts = 0

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens

    async def start(self) -> None:
        """There is nothing to start."""

    async def close(self) -> None:
        """There is nothing to close."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        last = len(self._tokens)
        for number, token in enumerate(self._tokens, 1):
            finish = FinishReason.LENGTH if number == last else None
            yield GenerationDelta(request.request_id, [token], number, 0, finish)


async def cost(read: Callable[[], AsyncGenerator[object, None]]) -> float:
    """Microseconds a token."""
    began = time.thread_time()
    async for _ in read():
        pass
    return (time.thread_time() - began) / TOKENS * 1e6


async def run(rounds: int) -> dict[str, list[float]]:
    tokenizer = load_tokenizer(DEMO)
    tokens = random.Random(1).choices(range(10, 49_000), k=TOKENS)
    for token in tokens:
        tokenizer.token_bytes(token)  # as after some minutes of serving
    engine = ReadyEngine(tokens)
    model = ServedModel(MODEL, tokenizer, load_chat_template(DEMO, tokenizer), engine)
    inference = Inference(Catalog([model], demo=True), ApiLimits(), Observer(Metrics({MODEL: engine})))
    sampling = SamplingParams(max_tokens=TOKENS)

    message = {"role": "user", "content": [{"text": "Hi"}]}
    config = {"maxTokens": TOKENS, "stopSequences": STOP}
    parsed = converse.parse(json.dumps({"messages": [message], "inferenceConfig": config}).encode())
    conversation = Conversation.of(parsed, Target(model, MODEL, False), streaming=True)
    body = {"model": MODEL, "prompt": "Hi", "max_tokens": TOKENS, "stream": True, "stop": STOP}
    asked = completion_request.parse(json.dumps(body).encode())
    completion, (call,) = Completion(asked, "r"), asked.calls(model)

    def answer() -> AsyncGenerator[TextDelta, None]:
        return inference.answer(call, Caller("r", LOCAL), time.perf_counter())

    layers: dict[str, Callable[[], AsyncGenerator[object, None]]] = {
        "engine's deltas": lambda: engine.generate(GenerationRequest("r", [1], sampling)),
        "text": lambda: model.generate("r", [1], sampling, STOP),
        "answer": answer,
        "frames of ConverseStream": lambda: conversation.frames(answer(), Stopwatch()),
        "frames of completions": lambda: completion.frames([answer()]),
    }
    costs: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(rounds):
        for name, read in layers.items():
            costs[name].append(await cost(read))
    inference.close()
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print("| up to and with | µs a token | min | max |\n|---|---|---|---|")
    for name, costs in uvloop.run(run(options.rounds)).items():
        costs.sort()
        print(f"| {name} | {costs[len(costs) // 2]:.1f} | {costs[0]:.1f} | {costs[-1]:.1f} |")


if __name__ == "__main__":
    main()
