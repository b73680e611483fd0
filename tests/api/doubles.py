"""Stand-ins for what the API sits on: a byte-level tokenizer and an engine that says what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from outcrop.catalog.model import ServedModel
from outcrop.engine.abilities import ABILITIES
from outcrop.engine.client import (
    Abilities,
    EngineClient,
    EngineStats,
    EngineUnavailable,
    FinishReason,
    GenerationDelta,
    GenerationRequest,
    TokenLogprobs,
)
from outcrop.text.chat_template import ChatMessage, ChatTemplate, ChatTemplateError, load_chat_template
from outcrop.text.tokenizer import Tokenizer, load_tokenizer
from outcrop.text.tools import Tool

EOS = 256


class ByteTokenizer(Tokenizer):
    """One token a byte, and one more that ends a turn."""

    vocab_size = 257
    bos_id = None
    eos_ids = (EOS,)
    max_token_bytes = 1

    special_tokens: ClassVar[dict[str, int]] = {"<|end|>": EOS}

    def __init__(self) -> None:
        """Takes nothing from a checkpoint."""

    def encode(self, text: str) -> list[int]:
        """NUL has no token, as in some real vocabularies."""
        return list(text.replace("\0", "").encode())

    def encode_prompt(self, text: str) -> list[int]:
        return self.encode(text)

    def token_bytes(self, token_id: int) -> bytes:
        return b"" if token_id == EOS else bytes([token_id])


class PlainTemplate(ChatTemplate):
    """`role: content` a line; refuses a conversation that says REFUSE."""

    def encode(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> list[int]:
        if any("REFUSE" in message.content for message in messages):
            raise ChatTemplateError("no such words here")
        return list("".join(f"{m.role}: {m.content}\n" for m in messages).encode())


@dataclass
class Script:
    """What the engine answers to the next requests.

    pieces: bytes of each delta. cached, held: as in GenerationDelta. finish: how the last ends. error: raised
    after `fail_after` deltas. hold: the engine stops after the first delta until it is closed.
    """

    pieces: Sequence[bytes] = (b"Hello", b", ", b"world")
    finish: FinishReason = FinishReason.EOS
    cached: int = 0
    held: int = 0
    error: Exception | None = None
    fail_after: int = 0
    hold: bool = False


@dataclass
class ScriptedEngine(EngineClient):
    """Follows its script. Keeps the requests it was given and counts the generators that are open."""

    script: Script = field(default_factory=Script)
    context: int = 512
    start_error: Exception | None = None
    starts_at_once: bool = True
    can: Abilities = ABILITIES["outcrop"]

    def __post_init__(self) -> None:
        self.requests: list[GenerationRequest] = []
        self.open = 0
        self.aborted = 0
        self.closed = False
        self.release = asyncio.Event()
        self._ready = False

    async def start(self) -> None:
        if self.start_error is not None:
            raise self.start_error
        if not self.starts_at_once:
            await self.release.wait()
        self._ready = True

    async def close(self) -> None:
        self._ready = False
        self.closed = True

    @property
    def ready(self) -> bool:
        return self._ready

    @property
    def max_model_len(self) -> int:
        return self.context

    @property
    def abilities(self) -> Abilities:
        return self.can

    @property
    def stats(self) -> EngineStats:
        return EngineStats(running=self.open, kv_blocks_used=1, kv_blocks_total=4, prompt_tokens=7)

    @property
    def restarts(self) -> int:
        return 2

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        if not self._ready:
            raise EngineUnavailable("not started")
        self.requests.append(request)
        script = self.script
        self.open += 1
        finished = False
        try:
            generated = 0
            for number, piece in enumerate(script.pieces):
                if script.error is not None and number == script.fail_after:
                    raise script.error
                await asyncio.sleep(0)
                generated += len(piece)
                told = [] if (most := request.sampling.logprobs) is None else _logprobs(piece, most)
                yield GenerationDelta(
                    request.request_id,
                    list(piece),
                    generated,
                    script.cached,
                    logprobs=told,
                    held=script.held,
                )
                if script.hold:
                    await asyncio.Event().wait()
            if script.error is not None:
                raise script.error
            finished = True
            yield GenerationDelta(
                request.request_id,
                [],
                generated + (script.finish is FinishReason.EOS),
                script.cached,
                script.finish,
                held=script.held,
            )
        finally:
            self.open -= 1
            self.aborted += not finished


def _logprobs(tokens: bytes, most: int) -> list[TokenLogprobs]:
    """The likeliest of each place are the token itself and those after it."""
    return [
        TokenLogprobs(-0.5, [((token + rank) % 256, -0.5 - rank) for rank in range(most)]) for token in tokens
    ]


def served(
    engine: EngineClient,
    model_id: str = "meta.llama3-8b-instruct-v1:0",
    *,
    checkpoint: Path | None = None,
    **extra: object,
) -> ServedModel:
    """checkpoint: whose tokenizer and chat template it has, instead of these."""
    tokenizer: Tokenizer = ByteTokenizer()
    template: ChatTemplate = PlainTemplate()
    if checkpoint is not None:
        tokenizer = load_tokenizer(checkpoint)
        template = load_chat_template(checkpoint, tokenizer)
    return ServedModel(model_id, tokenizer, template, engine, name="Llama 3 8B Instruct", **extra)  # type: ignore[arg-type]
