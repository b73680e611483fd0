"""vLLM in the engine process: its AsyncLLM, which runs its model in a process below this one.

The only module that imports vLLM, in whatever environment the engine process was started in
(`EngineConfig.python`). Names and arguments are those that vLLM has in 0.11, 0.13 and 0.32:
vllm/v1/engine/async_llm.py, vllm/engine/arg_utils.py, vllm/sampling_params.py, vllm/outputs.py. On a
NeuronCore it runs through a plug-in that vLLM finds by itself (vllm-neuron 0.4.1, optimum-neuron 0.4.5); that
is not yet run on a device.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec

from outcrop.backends.streaming import EngineLost, Piece
from outcrop.backends.vllm.answer import Answer
from outcrop.backends.vllm.exported import exported_arguments
from outcrop.backends.vllm.metrics import engine_stats
from outcrop.backends.vllm.neuron_plugin import neuron_plugin_arguments
from outcrop.backends.vllm.sampling import depends_on_answer, prompt_and_arguments, structured_outputs
from outcrop.engine.abilities import ABILITIES, Abilities, EngineKind
from outcrop.engine.config import EngineConfig
from outcrop.engine.frames import Ready
from outcrop.engine.messages import FinishReason, GenerationRequest
from outcrop.engine.stats import EngineStats

logger = logging.getLogger(__name__)

_PLUGINS: dict[str, EngineKind] = {"vllm_neuron": "vllm-neuron", "optimum": "optimum-neuron"}
"""By the package of the platform that vLLM chose."""


class VllmEngine:
    """A StreamingEngine."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._engine: Any = None
        self._max_model_len = 0
        self._abilities = Abilities()
        self._replays = False
        self._adapters: dict[str, Any] = {}
        self._submissions = itertools.count()

    async def start(self, progress: Callable[[str, float], None]) -> Ready:
        progress("vllm", 0.0)
        _set_environment(self._config)
        try:
            import vllm
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise ValueError(
                f"vLLM cannot be imported ({error}); name the interpreter of an environment that has it as "
                "the model's `python`, and see `outcrop doctor --engine vllm-cpu --python PATH`"
            ) from error
        kind = _kind()
        arguments = self._engine_arguments(kind)
        # It blocks for as long as loading takes; nothing else is to be done meanwhile.
        self._engine = AsyncLLM.from_engine_args(arguments)
        self._max_model_len = int(self._engine.model_config.max_model_len)
        self._abilities = self._found_abilities(kind, arguments)
        return Ready(
            self._max_model_len,
            f"{kind}, vLLM {vllm.__version__}, {self._max_model_len} tokens of context",
            self._abilities,
        )

    def _engine_arguments(self, kind: EngineKind) -> Any:
        """Raises ValueError."""
        from vllm.config import StructuredOutputsConfig
        from vllm.engine.arg_utils import AsyncEngineArgs

        config = self._config
        given: dict[str, Any] = {
            "model": config.model,
            "dtype": config.dtype,
            "max_model_len": config.max_model_len,
            "enable_prefix_caching": config.prefix_cache and ABILITIES[kind].prefix_cache,
            "scheduling_policy": "priority",
        }
        if config.max_rows:
            given["max_num_seqs"] = config.max_rows
        if config.block_size:
            given["block_size"] = config.block_size
        if config.kv_memory:
            given["kv_cache_memory_bytes"] = config.kv_memory
        self._replays = kind == "vllm" and "speculative_config" not in config.engine_args
        if kind == "vllm":
            given["structured_outputs_config"] = StructuredOutputsConfig(backend="guidance")
        if self._replays:
            given["logits_processors"] = ["outcrop.backends.vllm.replay:Replay"]
        if config.adapters:
            given |= _lora_arguments(config.adapters)
        given |= exported_arguments(config, kind) | config.engine_args
        if kind == "vllm-neuron":
            given |= neuron_plugin_arguments(given)
        try:
            return AsyncEngineArgs(**given)
        except TypeError as error:
            raise ValueError(f"engine_args: vLLM does not take them: {error}") from error

    def _found_abilities(self, kind: EngineKind, arguments: Any) -> Abilities:
        from vllm.lora.request import LoRARequest

        self._adapters = {
            name: LoRARequest(name, number, path)
            for number, (name, path) in enumerate(self._config.adapters.items(), 1)
        }
        able = ABILITIES[kind]
        speculates = bool(arguments.speculative_config)
        return msgspec.structs.replace(
            able,
            prefix_cache=bool(self._engine.vllm_config.cache_config.enable_prefix_caching),
            speculation=speculates,
            # vLLM leaves these logits processors out where it speculates
            # (vllm/v1/sample/logits_processor/__init__.py).
            min_p=able.min_p and not speculates,
            logit_bias=able.logit_bias and not speculates,
            adapters=tuple(self._adapters),
        )

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
        from vllm.v1.engine.exceptions import EngineDeadError

        answer = Answer(request, self._max_model_len)
        prompt, arguments = prompt_and_arguments(request)
        if self._replays and request.resumed and depends_on_answer(request):
            from outcrop.backends.vllm.replay import ARGUMENT

            arguments["extra_args"] = {ARGUMENT: request.resumed}
        if request.sampling.grammar:
            arguments["structured_outputs"] = StructuredOutputsParams(
                **structured_outputs(request.sampling.grammar)
            )
        tokens: dict[str, Any] = {"prompt_token_ids": prompt}
        if request.cache_salt:
            tokens["cache_salt"] = request.cache_salt
        try:
            params = SamplingParams(**arguments, detokenize=False, output_kind=RequestOutputKind.DELTA)
            outputs = self._engine.generate(
                tokens,
                params,
                # A request that is asked for again may come before its predecessor is gone.
                f"{request.request_id}-{next(self._submissions)}",
                lora_request=self._adapters[request.adapter] if request.adapter else None,
                priority=-request.priority,
            )
            async with aclosing(outputs):
                async for output in outputs:
                    if (piece := _piece(answer, output)) is not None:
                        yield piece
                    if answer.ended:
                        break
        except EngineDeadError as error:
            raise EngineLost("vLLM's engine died; its log says why") from error
        except _refusals() as error:
            # The API has checked the request, so this is ours to look at; only the request fails.
            logger.error("vLLM refused request %s: %s", request.request_id, error)
            yield answer.failed(FinishReason.GRAMMAR if request.sampling.grammar else FinishReason.ERROR)

    async def look(self) -> EngineStats:
        from prometheus_client import REGISTRY

        if self._engine.errored:
            raise EngineLost("vLLM's engine died; its log says why")
        return engine_stats(REGISTRY.collect())

    async def close(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None


def _piece(answer: Answer, output: Any) -> Piece | None:
    """output: vLLM's RequestOutput, of kind DELTA."""
    completion = output.outputs[0]
    tokens = list(completion.token_ids)
    places = [{token: told.logprob for token, told in place.items()} for place in completion.logprobs or ()]
    scheduled = getattr(output.metrics, "scheduled_ts", 0.0)  # by the clock that is read here
    return answer.piece(
        tokens,
        completion.finish_reason,
        answer.logprobs(tokens, places) if places else (),
        cached=output.num_cached_tokens or 0,
        running=time.monotonic() - scheduled if scheduled else 0.0,
    )


def _refusals() -> tuple[type[Exception], ...]:
    """What vLLM raises where one request is at fault, or has failed alone. For a request that it refuses
    it is a ValueError up to 0.13, and an error of its own in 0.32 (vllm/exceptions.py)."""
    from vllm.v1.engine.exceptions import EngineGenerateError

    try:
        from vllm.exceptions import VLLMError
    except ImportError:
        return ValueError, EngineGenerateError
    return ValueError, EngineGenerateError, VLLMError


def _kind() -> EngineKind:
    from vllm.platforms import current_platform

    package = type(current_platform).__module__.partition(".")[0]
    return _PLUGINS.get(package, "vllm")


def _lora_arguments(adapters: dict[str, str]) -> dict[str, Any]:
    """Raises ValueError."""
    ranks = []
    for name, path in adapters.items():
        try:
            ranks.append(int(json.loads((Path(path) / "adapter_config.json").read_text())["r"]))
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"adapters: {name}: {path} is no folder of a LoRA adapter (adapter_config.json): {error}"
            ) from error
    return {"enable_lora": True, "max_loras": len(adapters), "max_lora_rank": _rank(max(ranks))}


def _rank(rank: int) -> int:
    """The least that vLLM allocates for it (vllm/config/lora.py)."""
    sizes = (8, 16, 32, 64, 128, 256, 320, 512)
    return next((size for size in sizes if size >= rank), rank)


def _set_environment(config: EngineConfig) -> None:
    """What vLLM reads when it is imported; whatever the operator has set stays."""
    processors = sorted(os.sched_getaffinity(0))
    chosen = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        # Left alone it keeps one core for an API process, which is not in this one.
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, processors[: config.threads])),
    }
    for name, value in chosen.items():
        os.environ.setdefault(name, value)
