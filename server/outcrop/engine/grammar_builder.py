"""Grammars are built beside the step loop, so that no other request waits for them."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from outcrop.engine.loop import Built
from outcrop.text.base import Tokenizer

if TYPE_CHECKING:
    from outcrop.text.grammar import GrammarCompiler

logger = logging.getLogger(__name__)


class GrammarBuilder:
    """Builds one grammar after another on a thread of its own, which starts with the first of them.

    load_tokenizer: the model's, called once, on that thread. vocab_size: of the model, which may be padded
    beyond its tokenizer's. deliver: called on that thread with every result.
    """

    def __init__(
        self,
        load_tokenizer: Callable[[], Tokenizer] | None,
        vocab_size: int,
        deliver: Callable[[Built], None],
    ) -> None:
        self._load_tokenizer = load_tokenizer
        self._vocab_size = vocab_size
        self._deliver = deliver
        self._wanted: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._compiler: GrammarCompiler | None = None

    def build(self, request_id: str, grammar: str) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="grammar-builder", daemon=True)
            self._thread.start()
        self._wanted.put((request_id, grammar))

    def close(self) -> None:
        """Drop what is not built yet."""
        if self._thread is not None:
            while not self._wanted.empty():
                self._wanted.get()
            self._wanted.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            request_id, grammar = wanted
            matcher = None
            try:
                matcher = self._ready_compiler().matcher(grammar)
            except Exception:
                # The API has checked the grammar, so this is ours to look at; only its request fails.
                logger.exception("the grammar of request %s cannot be built", request_id)
            self._deliver(Built(request_id, grammar, matcher))

    def _ready_compiler(self) -> GrammarCompiler:
        if self._compiler is None:
            # llguidance and a second copy of the vocabulary: only for engines that are sent a grammar.
            from outcrop.text.grammar import GrammarCompiler

            if self._load_tokenizer is None:
                raise ValueError("this engine was given no tokenizer")
            tokenizer = self._load_tokenizer()
            if tokenizer.vocab_size > self._vocab_size:
                raise ValueError(
                    f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {self._vocab_size}"
                )
            self._compiler = GrammarCompiler(tokenizer)
        return self._compiler
