"""What an engine is asked to do and what it answers: the vocabulary it shares with its clients."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec


class FinishReason(enum.StrEnum):
    """Why a request ended."""

    EOS = "eos"  # the model produced one of the request's end-of-sequence ids
    LENGTH = "length"  # max_tokens reached
    CONTEXT = "context"  # the context window is full
    ABORT = "abort"  # the client went away
    ERROR = "error"  # the model produced NaN or Inf for this row, or the row could not be run
    GRAMMAR = "grammar"  # the request's grammar could not be built or followed


class SamplingParams(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How to choose each next token.

    temperature 0 is greedy. top_k 0 means the backend's cap (`Capabilities.topk_cap`). The draw for the
    token at position p depends on (seed, p) alone, never on the batch: see `engine/draws.py`.

    min_p drops tokens less likely than this share of the likeliest one's probability. The others edit the
    logits, greedy or not: repetition_penalty divides those of the prompt's and the answer's tokens that
    are positive and multiplies the others; presence_penalty is subtracted for tokens in the answer, and
    frequency_penalty for each time they are; logit_bias is added by token id. grammar (see
    `text/grammar.py`): the answer follows it, and ends when nothing but the end can follow.

    logprobs: None for none; else each token comes with its TokenLogprobs, which name so many of the likeliest
    tokens (at most `Capabilities.logprobs`).
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    eos_ids: tuple[int, ...] = ()
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    grammar: str = ""
    logprobs: int | None = None


BACKGROUND = -100
"""Requests of this priority or a lower one have what the others leave: while any other runs or waits, they
keep their slot and their blocks, if they have some, and stand still."""


class GenerationRequest(msgspec.Struct, frozen=True, array_like=True):
    """One prompt to continue.

    prompt: token ids, at least one. resumed: tokens already generated (and streamed) before an engine
    restart; they count as output. priority: higher runs first; see BACKGROUND for the lowest. cache_salt:
    prefix-cache entries are shared only between requests with the same salt (one per tenant). session: where
    there are several replicas, requests of a session are best answered by one of them; "" for none. adapter:
    the name of a LoRA adapter (`Abilities.adapters`), "" for none.
    """

    request_id: str
    prompt: Sequence[int]
    sampling: SamplingParams
    priority: int = 0
    cache_salt: str = ""
    resumed: list[int] = []
    session: str = ""
    adapter: str = ""


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the model thought of a token that it gave: natural logarithms of probabilities, as the model has
    them before temperature, penalties, biases and grammars. likeliest: ids and log probabilities of the
    tokens that it found likeliest in that place, falling; as many as were asked for."""

    logprob: float
    likeliest: list[tuple[int, float]]


class GenerationDelta(msgspec.Struct, frozen=True, array_like=True):
    """What one engine step, or several, added to one request: new token ids (without the end-of-sequence id),
    and, on the last delta, why it ended.

    generated: output tokens so far, the end-of-sequence id included (what usage reports).
    cached: prompt tokens served from the prefix cache.
    queued: seconds that it waited for its first step, as the API process sees it.
    logprobs: one for each of the tokens, where the request asked for them.
    """

    request_id: str
    tokens: list[int]
    generated: int
    cached: int = 0
    finish: FinishReason | None = None
    queued: float = 0.0
    logprobs: list[TokenLogprobs] = []
