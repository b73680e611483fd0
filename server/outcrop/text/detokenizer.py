"""Token ids back to text, as they arrive."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from outcrop.text.base import Tokenizer


class Detokenizer:
    """The text of one growing sequence of tokens.

    A token may end inside a UTF-8 character: its bytes wait here until the character is complete, so no
    half character is ever emitted. Bytes that can no longer become a character are emitted as U+FFFD, one
    for each maximal part, at once. However the tokens are grouped into pushes, the pushes and `finish`
    together give the UTF-8 decoding (errors="replace") of all their bytes. Each token costs its own
    length, not the length of what came before.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that these tokens complete; "" while a character is incomplete."""
        return self._decoder.decode(b"".join(map(self._token_bytes, token_ids)))

    def finish(self) -> str:
        """What is left at the end: U+FFFD for a character that never became complete, else ""."""
        return self._decoder.decode(b"", final=True)
