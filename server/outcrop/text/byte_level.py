"""Byte-level BPE through the `tokenizers` package: the form of tokenizer.json and of GGUF vocabularies."""

from __future__ import annotations

import tokenizers

from outcrop.text.base import Tokenizer, TokenizerError, TokenizerFacts, well_formed


def _byte_of_character() -> dict[int, int]:
    """GPT-2's alphabet, character to byte: printable Latin-1 stands for itself, the others for U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)}
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: byte for byte in printable} | {256 + i: byte for i, byte in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_of_character()


class ByteLevelTokenizer(Tokenizer):
    """A byte-level BPE tokenizer.

    `backend` must have been checked to be one; its added tokens that are not special keep their meaning
    in plain text, as the checkpoint declares. Raises TokenizerError if the text of a control token would
    encode to it, for then user text could forge control tokens.
    """

    def __init__(self, backend: tokenizers.Tokenizer, facts: TokenizerFacts) -> None:
        super().__init__(facts)
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # that is, as the plain text they are
        self._backend = backend
        self._bytes: dict[int, bytes] = dict.fromkeys(facts.special_tokens.values(), b"")
        for token_id, token in backend.get_added_tokens_decoder().items():
            self._bytes.setdefault(token_id, token.content.encode())
        control = set(facts.special_tokens.values())
        for name in facts.special_tokens:
            if not control.isdisjoint(self.encode(name)):
                raise TokenizerError(f"the text {name!r} would encode to a control token")

    def encode(self, text: str) -> list[int]:
        if not text:
            return []
        # `encode` would hold the GIL throughout; this one releases it, and computes no offsets.
        (encoding,) = self._backend.encode_batch_fast([well_formed(text)], add_special_tokens=False)
        return list(encoding.ids)

    def token_bytes(self, token_id: int) -> bytes:
        known = self._bytes.get(token_id)
        if known is None:
            token = self._backend.id_to_token(token_id) if 0 <= token_id < self.vocab_size else None
            if token is None:
                return b""
            known = self._bytes[token_id] = _spelled_bytes(token)
        return known


def _spelled_bytes(token: str) -> bytes:
    try:
        return token.translate(_BYTE_OF_CHARACTER).encode("latin-1")
    except UnicodeEncodeError:  # not in GPT-2's alphabet: an unused entry of the vocabulary, spelled as is
        return token.encode()
