"""The Llama 3 text models: their configurations under their Hugging Face and Amazon Bedrock names. With
these, planning needs no checkpoint.

Values: the config.json of each model under https://huggingface.co/meta-llama.
"""

from __future__ import annotations

from dataclasses import dataclass

from outcrop_compile.config import LlamaConfig, RopeScaling


@dataclass(frozen=True, slots=True)
class ModelShape:
    """name: Hugging Face's, without the organisation and without -Instruct. aliases: the other names, all in
    lower case."""

    name: str
    config: LlamaConfig
    aliases: frozenset[str]


_SCALING_31 = RopeScaling(8.0, 1.0, 4.0, 8192)
_SCALING_32 = RopeScaling(32.0, 1.0, 4.0, 8192)


def _shape(
    version: str,
    size: str,
    sizes: tuple[int, int, int, int],
    *,
    head_dim: int = 128,
    scaling: RopeScaling | None = _SCALING_31,
    tied: bool = False,
) -> ModelShape:
    """sizes: hidden, intermediate, layers, query heads."""
    hidden, intermediate, layers, heads = sizes
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=8,
        head_dim=head_dim,
        context=131_072 if scaling else 8192,
        rms_norm_eps=1e-5,
        rope_theta=500_000.0,
        rope_scaling=scaling,
        tie_embeddings=tied,
    )
    name = f"Llama-{version}-{size}"
    # Models up to 3.1 were first published with Meta- before their name.
    stems = {f"{prefix}{name}{suffix}" for prefix in ("", "Meta-") for suffix in ("", "-Instruct")}
    bedrock = f"meta.llama{version.replace('.', '-')}-{size}-instruct-v1"
    aliases = stems | {f"meta-llama/{stem}" for stem in stems} | {bedrock, f"{bedrock}:0"}
    return ModelShape(name, config, frozenset(alias.lower() for alias in aliases))


_8B = (4096, 14336, 32, 32)
_70B = (8192, 28672, 80, 64)

SHAPES = {
    shape.name: shape
    for shape in (
        _shape("3", "8B", _8B, scaling=None),
        _shape("3", "70B", _70B, scaling=None),
        _shape("3.1", "8B", _8B),
        _shape("3.1", "70B", _70B),
        _shape("3.1", "405B", (16384, 53248, 126, 128)),
        _shape("3.2", "1B", (2048, 8192, 16, 32), head_dim=64, scaling=_SCALING_32, tied=True),
        _shape("3.2", "3B", (3072, 8192, 28, 24), scaling=_SCALING_32, tied=True),
        _shape("3.3", "70B", _70B),
    )
}


def find_shape(name: str) -> ModelShape | None:
    """The model of a name, in any case; None if it is no Llama 3 text model's."""
    wanted = name.lower()
    return next((shape for shape in SHAPES.values() if wanted in shape.aliases), None)
