"""What a client may ask of `/openai/v1/completions`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from outcrop.api.field_error import FieldError, unsupported
from outcrop.api.inference import GenerationCall, Prompt
from outcrop.api.openai import errors
from outcrop.api.openai.decode import decode
from outcrop.api.openai.logprobs import MOST_LIKELIEST, LogprobsForm
from outcrop.api.openai.sampling import Sampled, no_token, tells_logprobs
from outcrop.api.sampling import SamplingExtras
from outcrop.catalog.model import ServedModel

MAX_PROMPTS = 128
_DEFAULT_MAX_TOKENS = 16

TokenIds = list[int]


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None


class CompletionRequest(Sampled, kw_only=True):
    """A parameter that would change the answer and is not done here is refused rather than ignored."""

    model: str
    prompt: str | list[str | int | TokenIds]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    n: int | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: Annotated[int, Meta(ge=0, le=MOST_LIKELIEST)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    return_token_ids: bool | None = None

    @property
    def includes_usage(self) -> bool:
        """Whether a stream is to end with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def calls(self, model: ServedModel) -> list[GenerationCall]:
        """One call for each prompt, in their order. Raises ValidationException."""
        vocab_size = model.tokenizer.vocab_size
        try:
            extras = self.extras(vocab_size)
        except FieldError as error:
            raise errors.refuse(error) from None
        if self.logprobs is not None and not tells_logprobs(model):
            raise errors.refuse(unsupported("logprobs", "the model's engine tells none."))
        return [self._call(model, prompt, extras) for prompt in self._prompts(vocab_size)]

    def logprobs_form(self, model: ServedModel) -> LogprobsForm | None:
        """How the choices tell log probabilities, if they do."""
        return None if self.logprobs is None else LogprobsForm(model.tokenizer)

    def _call(self, model: ServedModel, prompt: str | TokenIds, extras: SamplingExtras) -> GenerationCall:
        encode = model.tokenizer.encode_prompt
        return GenerationCall(
            model,
            prepare=lambda: Prompt(encode(prompt) if isinstance(prompt, str) else prompt),
            prompt_bytes=len(prompt.encode()) if isinstance(prompt, str) else 0,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            max_tokens=self.max_tokens,
            default_max_tokens=_DEFAULT_MAX_TOKENS,
            extras=extras,
            stop=self.stops,
            ignore_eos=bool(self.ignore_eos),
            operation="text_completion",
            logprobs=self.logprobs,
        )

    def _prompts(self, vocab_size: int) -> Sequence[str | TokenIds]:
        """A list of integers is one prompt, any other list has a prompt in each element."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        ids = [each for each in self.prompt if isinstance(each, int)]
        prompts: list[str | TokenIds] = [each for each in self.prompt if not isinstance(each, int)]
        if ids:
            if prompts:
                raise errors.invalid("prompt: token ids beside prompts; give each its own list", "prompt")
            prompts = [ids]
        if not 1 <= len(prompts) <= MAX_PROMPTS:
            raise errors.invalid(f"prompt: 1 to {MAX_PROMPTS} prompts, not {len(prompts)}", "prompt")
        for prompt in prompts:
            for token in () if isinstance(prompt, str) else {min(prompt, default=0), max(prompt, default=0)}:
                if not 0 <= token < vocab_size:
                    raise errors.invalid(f"prompt: {no_token(token, vocab_size)}", "prompt")
        return prompts


_DECODER = msgspec.json.Decoder(CompletionRequest)


def parse(body: bytes) -> CompletionRequest:
    """The request in a body. Raises ValidationException, naming the parameter."""
    request = decode(body, _DECODER)
    _refuse_unsupported(request)
    return request


def _refuse_unsupported(request: CompletionRequest) -> None:
    """Raises ValidationException."""
    refused = {
        "n": (request.n not in (None, 1), "give the prompt as often in `prompt`"),
        "best_of": (request.best_of not in (None, 1), "there is one choice for each prompt"),
        "echo": (request.echo, "put the prompt before the answer"),
        "suffix": (request.suffix, "the model continues a prompt, and fills no gaps"),
        "stream_options": (request.stream_options and not request.stream, "they are for stream: true"),
    }
    for param, (is_given, advice) in refused.items():
        if is_given:
            raise errors.invalid(f"{param}: this value is not supported here; {advice}.", param)
