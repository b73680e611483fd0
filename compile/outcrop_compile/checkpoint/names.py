"""Canonical tensor names and shapes, and how a file's own names are matched to them.

embed [V, H]    norm [H]    lm_head [V, H] (absent when tied to embed), and for each layer i
layers.{i}.  attn_norm [H]  q [heads*D, H]  k, v [kv_heads*D, H]  o [H, heads*D]
             mlp_norm [H]   gate, up [F, H]  down [H, F]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from outcrop_compile.checkpoint.errors import CheckpointError
from outcrop_compile.checkpoint.tensors import Shape
from outcrop_compile.config import LlamaConfig

ROTARY = ("q", "k")  # what Meta and llama.cpp store with interleaved rotary pairs


def canonical_shapes(config: LlamaConfig) -> Iterator[tuple[str, Shape]]:
    """Every canonical tensor of a model, in the order of its layers, with its shape."""
    hidden, inner = config.hidden_size, config.intermediate_size
    query, key = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    layer: dict[str, Shape] = {
        "attn_norm": (hidden,),
        "q": (query, hidden),
        "k": (key, hidden),
        "v": (key, hidden),
        "o": (hidden, query),
        "mlp_norm": (hidden,),
        "gate": (inner, hidden),
        "up": (inner, hidden),
        "down": (hidden, inner),
    }
    yield "embed", (config.vocab_size, hidden)
    for index in range(config.num_layers):
        for part, shape in layer.items():
            yield f"layers.{index}.{part}", shape
    yield "norm", (hidden,)
    if not config.tie_embeddings:
        yield "lm_head", (config.vocab_size, hidden)


def kind_of(name: str) -> str:
    """ "q" of "layers.3.q": the key of the formats' name tables."""
    return name.rpartition(".")[2]


def stored_name(name: str, table: Mapping[str, str]) -> str:
    """A canonical name in a format's own words; `table` maps kinds to templates with an {i}."""
    return table[kind_of(name)].format(i=name.split(".")[1] if "." in name else "")


def match(
    config: LlamaConfig, table: Mapping[str, str], found: Mapping[str, Shape], where: str, ignored: set[str]
) -> dict[str, str]:
    """Pair canonical names with the file's, having checked that the file holds the tensors that its
    configuration implies, of the right shapes, and no others (a bias or an adapter left out would make
    the model quietly wrong). Raises CheckpointError naming the first tensor at fault."""
    names: dict[str, str] = {}
    for name, shape in canonical_shapes(config):
        stored = stored_name(name, table)
        if stored not in found:
            raise CheckpointError(f"{where}: tensor {stored!r} is missing (expected shape {list(shape)})")
        if found[stored] != shape:
            raise CheckpointError(
                f"{where}: tensor {stored!r} has shape {list(found[stored])};"
                f" the configuration implies {list(shape)}"
            )
        names[name] = stored
    unexpected = sorted(found.keys() - names.values() - ignored)
    if unexpected:
        raise CheckpointError(
            f"{where}: unexpected tensor {unexpected[0]!r} ({len(unexpected)} in all);"
            " a Llama 3 model has no such weight, and leaving it out would change the answers"
        )
    return names
