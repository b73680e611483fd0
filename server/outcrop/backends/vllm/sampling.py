"""What a request says, in the words that vLLM's SamplingParams and its completions API share."""

from __future__ import annotations

import json
from typing import Any

from outcrop.engine.messages import GenerationRequest

_LEAST_TOP_P = 1e-6
"""Of vLLM, which refuses 0: with either, the likeliest token alone is left."""


def sampling_arguments(request: GenerationRequest) -> dict[str, Any]:
    """Names as of vLLM's SamplingParams (vllm/sampling_params.py) and CompletionRequest
    (vllm/entrypoints/openai/completion/protocol.py), 0.11 to 0.32. The request's own end tokens stop it, not
    the model's configuration, save where a grammar ends with the tokenizer's."""
    sampling = request.sampling
    arguments: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": max(sampling.top_p, _LEAST_TOP_P),
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "seed": sampling.seed,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "max_tokens": sampling.max_tokens,
        "stop_token_ids": list(sampling.eos_ids),
        "ignore_eos": not sampling.grammar,
    }
    if sampling.logit_bias:
        arguments["logit_bias"] = dict(sampling.logit_bias)
    if sampling.logprobs is not None:
        arguments["logprobs"] = sampling.logprobs
    return arguments


def structured_outputs(grammar: str) -> dict[str, str]:
    """A grammar of `text/grammar.py` as the argument of vLLM's StructuredOutputsParams: llguidance's Lark,
    which vLLM's "guidance" backend gives to llguidance as it is. (As `json`, a schema would be given other
    white space.)"""
    if grammar.startswith("{"):
        (only,) = json.loads(grammar)["grammars"]
        grammar = f"start: %json {json.dumps(only['json_schema'])}"
    return {"grammar": grammar}


def depends_on_answer(request: GenerationRequest) -> bool:
    """Whether what comes next depends on the answer's tokens as such, so that an answer which goes on after a
    restart cannot have them in its prompt instead: a grammar, or a penalty on what the answer has said."""
    sampling = request.sampling
    return bool(sampling.grammar or sampling.presence_penalty or sampling.frequency_penalty)


def prompt_and_arguments(request: GenerationRequest) -> tuple[list[int], dict[str, Any]]:
    """The prompt and sampling arguments. Of an answer that goes on after a restart, its tokens so far end the
    prompt, unless it has to be made again (`depends_on_answer`)."""
    arguments = sampling_arguments(request)
    if depends_on_answer(request):
        return [*request.prompt], arguments
    resumed = request.resumed
    arguments["max_tokens"] -= len(resumed)
    # Other draws than at the start, where the seed would make the same ones again.
    arguments["seed"] += len(resumed)
    return [*request.prompt, *resumed], arguments
