"""What every tokenizer of Outcrop does, and how special-token text is told from control tokens."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# Names under which checkpoints publish the tokens that end a turn: Llama 3, then ChatML.
END_OF_TURN = ("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "<|im_end|>", "<|endoftext|>")


class TokenizerError(ValueError):
    """The checkpoint has no tokenizer that Outcrop can use; the message names the file and says why."""


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What a checkpoint says about its tokenizer beside the vocabulary.

    special_tokens: text of each control token and its id. bos_id: the token every prompt starts with,
    None where the model uses none. eos_ids: every id that ends a turn. named_tokens: what a chat
    template may refer to by name (`bos_token`, `eos_token` ...). chat_template: Jinja source, if any.
    max_token_bytes: UTF-8 length of the longest token.
    """

    vocab_size: int
    max_token_bytes: int
    special_tokens: Mapping[str, int]
    bos_id: int | None
    eos_ids: tuple[int, ...]
    named_tokens: Mapping[str, str] = field(default_factory=dict)
    chat_template: str | None = None


class Tokenizer(ABC):
    """Text to token ids and back.

    Text is what people wrote: `encode` never produces a control token from it, whatever it spells.
    Control tokens come from chat templates and from raw prompts (`encode_prompt`) alone. A lone
    surrogate, which UTF-8 cannot carry, counts as U+FFFD. Every method may be called from any thread,
    and encoding lets other Python threads run meanwhile.

    `len(text.encode()) / max_token_bytes` is a lower bound of the number of tokens, cheap enough to
    refuse an over-long prompt with before it is tokenised. (Bytes for which a vocabulary has no token
    at all, as SmolLM2's has none for some control characters, count in the bound though they vanish.)
    """

    vocab_size: int
    max_token_bytes: int
    special_tokens: Mapping[str, int]
    bos_id: int | None
    eos_ids: tuple[int, ...]
    named_tokens: Mapping[str, str]
    chat_template: str | None

    def __init__(self, facts: TokenizerFacts) -> None:
        self.vocab_size = facts.vocab_size
        self.max_token_bytes = facts.max_token_bytes
        self.special_tokens = facts.special_tokens
        self.bos_id = facts.bos_id
        self.eos_ids = facts.eos_ids
        self.named_tokens = facts.named_tokens
        self.chat_template = facts.chat_template
        longest_first = sorted(facts.special_tokens, key=len, reverse=True)
        self._special = re.compile("(" + ("|".join(map(re.escape, longest_first)) or "(?!)") + ")")

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of plain text; special-token text in it stays text. No BOS."""

    @abstractmethod
    def token_bytes(self, token_id: int) -> bytes:
        """The bytes one token stands for: b"" for control tokens and for ids outside the vocabulary
        (models pad their vocabulary, and may produce such an id)."""

    def encode_prompt(self, text: str) -> list[int]:
        """The ids of a raw prompt: special-token text becomes control tokens, and BOS comes first
        if the model uses one and the text does not start with it."""
        pieces = self.split_special(text)
        ids = self.encode(pieces[0])
        for name, plain in zip(pieces[1::2], pieces[2::2], strict=True):
            ids.append(self.special_tokens[name])
            ids += self.encode(plain)
        if self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids.insert(0, self.bos_id)
        return ids

    def split_special(self, text: str) -> list[str]:
        """Cut text at special-token text: plain, special, plain, ..., plain (the plain ones may be "")."""
        return self._special.split(text)


def end_of_turn_ids(special_tokens: Mapping[str, int], declared: Iterable[int]) -> tuple[int, ...]:
    """Every id that ends a turn: those the checkpoint declares and those known by name, sorted."""
    known = (special_tokens[name] for name in END_OF_TURN if name in special_tokens)
    return tuple(sorted({*declared, *known}))


def well_formed(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates replaced, so that it has a UTF-8 form."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
