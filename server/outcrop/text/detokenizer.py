"""Token ids back to text, as they arrive."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Sequence

from outcrop.text.base import Tokenizer


class Detokenizer:
    """The text of one growing sequence of tokens.

    A token may end inside a UTF-8 character: its bytes wait here until the character is complete, so no
    half character is ever emitted. Bytes that can no longer become a character are emitted as U+FFFD, one
    for each maximal part, at once. However the tokens are grouped into pushes, the pushes and `finish`
    together give the UTF-8 decoding (errors="replace") of all their bytes. Each token costs its own
    length, not the length of what came before.

    visible: names of control tokens that appear as their text; the others vanish, and a name that the
    tokenizer does not have is text already.
    """

    def __init__(self, tokenizer: Tokenizer, visible: Collection[str] = ()) -> None:
        self._shown = {
            tokenizer.special_tokens[name]: name.encode()
            for name in visible
            if name in tokenizer.special_tokens
        }
        self._token_bytes = tokenizer.token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._waiting = False  # the decoder holds the beginning of a character

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that these tokens complete; "" while a character is incomplete."""
        shown, token_bytes = self._shown, self._token_bytes
        if shown:
            data = b"".join([shown.get(i) or token_bytes(i) for i in token_ids])
        else:
            data = b"".join(map(token_bytes, token_ids))
        if not self._waiting:
            # Whole characters are by far the most frequent, and need no decoder that remembers.
            try:
                return data.decode()
            except UnicodeDecodeError:
                pass
        text = self._decoder.decode(data)
        self._waiting = bool(self._decoder.getstate()[0])
        return text

    def finish(self) -> str:
        """What is left at the end: U+FFFD for a character that never became complete, else ""."""
        return self._decoder.decode(b"", final=True)
