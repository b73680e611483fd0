"""The engine of the servers under test: the real scheduler on a model without weights."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from outcrop.backends.base import Capabilities
from outcrop.backends.fake import FakeBackend, FakeHooks
from outcrop.engine.client import GenerationDelta, GenerationRequest
from outcrop.engine.in_process import InProcessClient

from ..api.doubles import ByteTokenizer

CAPABILITIES = Capabilities(
    max_rows=8,
    block_size=16,
    num_blocks=512,
    max_model_len=2048,
    vocab_size=ByteTokenizer.vocab_size,
    topk_cap=64,
    depth=2,
)


class FakeEngine(InProcessClient):
    """Counts what it is asked."""

    def __init__(self, hooks: FakeHooks | None = None) -> None:
        super().__init__(FakeBackend(CAPABILITIES, hooks or FakeHooks()), load_tokenizer=ByteTokenizer)
        self.asked = 0

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        self.asked += 1
        return super().generate(request)

    @property
    def idle(self) -> bool:
        """Nothing runs or waits, and every KV block is free."""
        scheduler = self.core.scheduler
        return (
            self.core.idle and scheduler.pool.num_free == scheduler.pool.num_blocks and not scheduler.requests
        )
