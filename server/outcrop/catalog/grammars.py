"""Whether a model's answers can be held to a grammar: asked before a request is admitted."""

from __future__ import annotations

import threading
from collections import OrderedDict

from outcrop.text.grammar import GrammarCompiler, GrammarError
from outcrop.text.tokenizer import Tokenizer

REMEMBERED = 256
"""Verdicts kept: applications ask with the same few schemas again and again."""


class Grammars:
    """Checks grammars against one tokenizer. Thread-safe; `check` is slow, so call it in a thread."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._compiler: GrammarCompiler | None = None
        self._verdicts: OrderedDict[str, str] = OrderedDict()  # grammar -> why not, or ""

    def prepare(self) -> None:
        """Do now what the first check would otherwise wait for. Raises GrammarError."""
        self._get_compiler()

    def check(self, grammar: str) -> None:
        """Raises GrammarError if no answer can follow the grammar."""
        with self._lock:
            verdict = self._verdicts.get(grammar)
            if verdict is not None:
                self._verdicts.move_to_end(grammar)
        if verdict is None:
            verdict = self._judge(grammar)
            with self._lock:
                self._verdicts[grammar] = verdict
                if len(self._verdicts) > REMEMBERED:
                    self._verdicts.popitem(last=False)
        if verdict:
            raise GrammarError(verdict)

    def _judge(self, grammar: str) -> str:
        try:
            self._get_compiler().check(grammar)
        except GrammarError as error:
            return str(error)
        return ""

    def _get_compiler(self) -> GrammarCompiler:
        with self._lock:
            if self._compiler is None:
                self._compiler = GrammarCompiler(self._tokenizer)
            return self._compiler
