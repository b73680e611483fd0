"""What any engine over the fake model must answer: the model called token by token, alone."""

import numpy as np

from outcrop.backends.base import Capabilities
from outcrop.backends.fake import next_token
from outcrop.engine.draws import draws
from outcrop.engine.messages import FinishReason, GenerationRequest


def capabilities(**changes: int) -> Capabilities:
    """A small engine: four rows, blocks of four tokens, memory for less than four long requests."""
    sizes = {
        "max_rows": 4, "block_size": 4, "num_blocks": 40, "max_model_len": 100,
        "vocab_size": 50, "topk_cap": 8, "depth": 2,
    }  # fmt: skip
    return Capabilities(**(sizes | changes))


def answer(request: GenerationRequest, caps: Capabilities) -> tuple[list[int], FinishReason]:
    """The tokens a client must receive, and why they end."""
    context, output, sampling = list(request.prompt), [], request.sampling
    while True:
        position = np.array([len(context)], dtype=np.int32)
        draw = draws(np.array([sampling.seed], dtype=np.uint64), position)[0]
        token = next_token(context, caps.vocab_size, sampling.temperature, float(draw))
        if token in sampling.eos_ids:
            return output, FinishReason.EOS
        output.append(token)
        context.append(token)
        if len(output) >= sampling.max_tokens:
            return output, FinishReason.LENGTH
        if len(context) >= caps.max_model_len:
            return output, FinishReason.CONTEXT
