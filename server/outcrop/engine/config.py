"""What an engine process is told at its start."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

DEFAULT_KV_MEMORY = 192 << 20
DEFAULT_WEIGHT_CACHE_SIZE = 20 << 30

PACKAGES = "packages"
"""The folder beside an engine's socket with links to Outcrop's packages, for an interpreter of another
environment."""

PolicyName = Literal["auto", "interleave", "paced", "prefill-first", "decode-first"]
"""The keys of `engine.policy.POLICIES`, spelled out here so that reading settings does not import it, and
"auto": `paced` on NeuronCores, whose steps its tokens are chosen for, `interleave` elsewhere."""


KernelsName = Literal["auto", "native", "torch"]
DTypeName = Literal["auto", "float32", "bfloat16", "int8", "int4"]
BackendName = Literal["cpu", "fake", "neuron", "vllm"]


class EngineConfig(msgspec.Struct, frozen=True):
    """One replica. model: checkpoint path. artifact: folder of what was compiled for the neuron backend,
    which decides sizes and types; cores: its NeuronCores, such as "0-7"; None is the machine's first. dtype:
    of the weights (`outcrop_compile.weights.load_weights`); "auto" is bfloat16 where it is the faster one,
    else float32. weight_cache: folder for packed weights, "auto" (the user's cache folder) or "off";
    weight_cache_size: bytes it may hold (`backends.weight_cache.WeightCache`). kernels: "native" for the C++
    ones, "torch" for torch's, "auto" for the native ones where they were built. kv_memory: bytes for KV
    pools. max_model_len: tokens; None is what the checkpoint and the KV memory allow. max_rows: requests
    running at once. speculative_tokens: guesses at an answer's next tokens that one step verifies, 0 for
    none. threads: for computing; None is one a core. processors: those of the system that the engine may run
    on; none named is all. vocab_size: of the fake backend, which has no weights to tell it. fake_*: its time
    per step and its fatal token (`backends.fake.FakeHooks`).

    Of the vLLM backend, to which kv_memory, max_rows and block_size of 0 leave the choice: url, of a server
    that runs already; else python, the interpreter of the environment that has vLLM ("" is this one's), and
    engine_args, further arguments of its AsyncEngineArgs. served_name: the server's name for the model, ""
    for its first. api_key_env: the environment variable with the server's key. adapters: folders of LoRA
    adapters by their names, which a server has to know.
    """

    model: str
    backend: BackendName = "cpu"
    artifact: str = ""
    cores: str | None = None
    dtype: DTypeName = "auto"
    weight_cache: str = "auto"
    weight_cache_size: int = DEFAULT_WEIGHT_CACHE_SIZE
    kernels: KernelsName = "auto"
    kv_memory: int = DEFAULT_KV_MEMORY
    max_model_len: int | None = None
    max_rows: int = 32
    block_size: int = 32
    depth: int = 2
    policy: PolicyName = "auto"
    prefix_cache: bool = True
    speculative_tokens: int = 0
    threads: int | None = None
    processors: tuple[int, ...] = ()
    vocab_size: int = 32000
    fake_step_ms: float = 0.0
    fake_poison: int | None = None
    url: str = ""
    python: str = ""
    served_name: str = ""
    api_key_env: str = ""
    engine_args: dict[str, Any] = {}
    adapters: dict[str, str] = {}
