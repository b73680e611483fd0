"""Meta's own `tokenizer.model`: byte-pair ranks in tiktoken's text format."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from pathlib import Path

import tiktoken

from outcrop.text import llama3
from outcrop.text.base import Tokenizer, TokenizerError, TokenizerFacts, end_of_turn_ids

# Limits of Meta's tokenizer, kept because cutting changes tokens: tiktoken's regex engine gives up on
# longer inputs (https://github.com/openai/tiktoken/issues/195).
_MAX_CHARS = 400_000
_MAX_RUN = 25_000
_LONG_RUN = re.compile(rf"(?<!\S)\S{{{_MAX_RUN + 1},}}|(?<!\s)\s{{{_MAX_RUN + 1},}}")


class TiktokenTokenizer(Tokenizer):
    """Llama 3's tokenizer from Meta's rank file; token for token the one in `llama_models`."""

    def __init__(self, ranks: dict[bytes, int]) -> None:
        special = llama3.special_tokens(len(ranks))
        super().__init__(
            TokenizerFacts(
                vocab_size=len(ranks) + len(special),
                max_token_bytes=max(map(len, (*ranks, *special))),
                special_tokens=special,
                bos_id=special[llama3.BEGIN_OF_TEXT],
                eos_ids=end_of_turn_ids(special, ()),
                named_tokens={"bos_token": llama3.BEGIN_OF_TEXT, "eos_token": llama3.END_OF_TEXT},
            )
        )
        self._ordinary = len(ranks)
        self._encoding = tiktoken.Encoding(
            "llama3", pat_str=llama3.PATTERN, mergeable_ranks=ranks, special_tokens=special
        )

    def encode(self, text: str) -> list[int]:
        if len(text) <= _MAX_RUN:
            return self._encoding.encode_ordinary(text)
        ids: list[int] = []
        for piece in _bounded_pieces(text):
            ids += self._encoding.encode_ordinary(piece)
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        if not 0 <= token_id < self._ordinary:
            return b""
        return self._encoding.decode_single_token_bytes(token_id)


def _bounded_pieces(text: str) -> Iterator[str]:
    """Cut text as Meta does: into blocks of 400,000 characters, and within a block so that no piece
    holds more than 25,000 whitespace characters, or 25,000 others, in a row."""
    for at in range(0, len(text), _MAX_CHARS):
        block, start = text[at : at + _MAX_CHARS], 0
        for run in _LONG_RUN.finditer(block):
            for cut in range(run.start() + _MAX_RUN, run.end(), _MAX_RUN):
                yield block[start:cut]
                start = cut
        yield block[start:]


def load_tiktoken(path: Path) -> TiktokenTokenizer:
    """Read a Llama 3 `tokenizer.model`. Raises TokenizerError, OSError."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[binascii.a2b_base64(token, strict_mode=True)] = int(rank)
        except ValueError:
            raise TokenizerError(
                f"{path}: line {number} is not a base64 token and its rank. Supported: Llama 3's "
                "tokenizer.model in tiktoken format (Llama 2's SentencePiece file is not)"
            ) from None
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise TokenizerError(f"{path}: the ranks are not 0 to {len(ranks) - 1}; is the file complete?")
    missing = [byte for byte in range(256) if bytes((byte,)) not in ranks]
    if missing:
        raise TokenizerError(f"{path}: no token for byte 0x{missing[0]:02x}; is the file complete?")
    return TiktokenTokenizer(ranks)
