"""What any engine over the fake model must answer: the model called token by token, alone."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from outcrop.backends.base import F32, I32, Capabilities
from outcrop.backends.fake import next_token
from outcrop.engine.draws import draws, streams
from outcrop.engine.messages import FinishReason, GenerationRequest, SamplingParams


def capabilities(**changes: int) -> Capabilities:
    """A small engine: four rows, blocks of four tokens, memory for less than four long requests."""
    sizes = {
        "max_rows": 4, "block_size": 4, "num_blocks": 40, "max_model_len": 100,
        "vocab_size": 50, "topk_cap": 8, "depth": 2,
    }  # fmt: skip
    return Capabilities(**(sizes | changes))


def permitted(grammar: str, output: Sequence[int], vocab_size: int) -> set[int]:
    """A grammar without a tokenizer, "K N": N tokens, each of which, added to the one before it, is no
    multiple of K. The end-of-sequence token, 0, may come in the second half. "stuck": nothing may come
    after three tokens."""
    if grammar == "stuck":
        return set() if len(output) == 3 else set(range(1, vocab_size))
    divisor, length = map(int, grammar.split())
    last = output[-1] if output else 0
    tokens = {token for token in range(1, vocab_size) if (token + last) % divisor}
    return tokens | ({0} if 2 * len(output) >= length else set())


def mask(tokens: set[int], vocab_size: int) -> I32:
    bits = np.zeros(-(-vocab_size // 32) * 32, dtype=np.uint8)
    bits[list(tokens)] = 1
    return np.packbits(bits, bitorder="little").view(np.int32)


class ToyMatcher:
    """Follows `permitted`."""

    def __init__(self, grammar: str, vocab_size: int) -> None:
        self.grammar, self.vocab_size = grammar, vocab_size
        self.output: list[int] = []
        self.error = ""

    def fill(self, row: I32) -> None:
        assert not self.finished
        row[:] = mask(permitted(self.grammar, self.output, self.vocab_size), self.vocab_size)

    def accept(self, token: int) -> bool:
        if token not in permitted(self.grammar, self.output, self.vocab_size):
            self.error = f"{token} is not allowed"
            return False
        self.output.append(token)
        return True

    @property
    def finished(self) -> bool:
        return _complete(self.grammar, self.output)


def _complete(grammar: str, output: Sequence[int]) -> bool:
    return grammar != "stuck" and (output[-1:] == [0] or len(output) == int(grammar.split()[1]))


def edits(
    sampling: SamplingParams, prompt: Sequence[int], output: Sequence[int], vocab_size: int
) -> dict[str, I32 | F32]:
    """The edits of the logits of the next token, from their definition."""
    wanted: dict[str, I32 | F32] = {}
    if sampling.grammar:
        wanted["allowed"] = mask(permitted(sampling.grammar, output, vocab_size), vocab_size)
    if sampling.logit_bias or sampling.presence_penalty or sampling.frequency_penalty:
        bias = [
            sampling.logit_bias.get(token, 0.0)
            - sampling.presence_penalty * (token in output)
            - sampling.frequency_penalty * output.count(token)
            for token in range(vocab_size)
        ]
        wanted["bias"] = np.array(bias, dtype=np.float32)
    if sampling.repetition_penalty != 1.0:
        seen = {*prompt, *output}
        factors = [sampling.repetition_penalty if token in seen else 1.0 for token in range(vocab_size)]
        wanted["repetition"] = np.array(factors, dtype=np.float32)
    return wanted


@dataclass(frozen=True)
class OftenRight:
    """Guesses what the model would say next at temperature 0, each time right with this probability."""

    share: float

    def propose(self, tokens: I32, count: int) -> I32:
        rng = random.Random(hash((self.share, len(tokens), int(tokens[-1]))))
        context, vocab_size = tokens.tolist(), capabilities().vocab_size
        for _ in range(rng.randint(0, count)):
            right = rng.random() < self.share
            context.append(next_token(context, vocab_size) if right else rng.randrange(vocab_size))
        return np.array(context[len(tokens) :], dtype=np.int32)


def answer(request: GenerationRequest, caps: Capabilities) -> tuple[list[int], FinishReason]:
    """The tokens a client must receive, and why they end."""
    context, output, sampling = list(request.prompt), [], request.sampling
    while True:
        position = np.array([len(context)], dtype=np.int32)
        draw = draws(streams(np.array([sampling.seed], dtype=np.uint64)), position)[0]
        wanted = edits(sampling, request.prompt, output, caps.vocab_size)
        if sampling.grammar and not permitted(sampling.grammar, output, caps.vocab_size):
            return output, FinishReason.GRAMMAR
        token = next_token(context, caps.vocab_size, sampling.temperature, float(draw), **wanted)
        if token in sampling.eos_ids:
            return output, FinishReason.EOS
        output.append(token)
        context.append(token)
        if sampling.grammar and _complete(sampling.grammar, output):
            return output, FinishReason.EOS
        if len(output) >= sampling.max_tokens:
            return output, FinishReason.LENGTH
        if len(context) >= caps.max_model_len:
            return output, FinishReason.CONTEXT
