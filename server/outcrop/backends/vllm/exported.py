"""A model folder that optimum-neuron exported: what vLLM has to be told so that its plug-in serves it.

`optimum-cli neuron serve` gives vLLM the same (optimum/commands/neuron/serve.py of huggingface/optimum-neuron
v0.4.5): sizes are those that were compiled, and the plug-in checks few of them. Not yet run on a device.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

from outcrop.engine.abilities import EngineKind
from outcrop.engine.config import EngineConfig
from outcrop_compile.optimum_neuron.exported import Exported, is_exported, read_exported


def exported_arguments(config: EngineConfig, kind: EngineKind) -> dict[str, Any]:
    """Arguments of AsyncEngineArgs; none for a folder that optimum-neuron did not export. Raises ValueError
    where the folder or the settings do not fit what was compiled."""
    folder = Path(config.model)
    if not is_exported(folder):
        return {}
    found = read_exported(folder)
    if kind != "optimum-neuron":
        raise ValueError(
            f"{folder} was exported by optimum-neuron {found.optimum_neuron} and is served by its vLLM "
            f"plug-in; this is {kind}: name the interpreter that has it as the model's `python`"
        )
    _require_version(found)
    if config.max_rows > found.batch:
        raise ValueError(f"max_rows: {folder} was compiled for {found.batch}, not {config.max_rows}")
    if (config.max_model_len or 0) > found.length:
        raise ValueError(
            f"max_model_len: {folder} was compiled for {found.length} tokens, not {config.max_model_len}"
        )
    return {
        "tensor_parallel_size": found.tp,
        "max_num_seqs": config.max_rows or found.batch,
        "max_model_len": found.length,
        "dtype": found.dtype,
    }


def _require_version(found: Exported) -> None:
    """optimum-neuron reads folders of its own version alone (NeuronConfig.from_dict), and says so late."""
    version = metadata.version("optimum-neuron")
    if version != found.optimum_neuron:
        raise ValueError(
            f"{found.folder} was exported by optimum-neuron {found.optimum_neuron}, and {version} is "
            "installed: install that version, or export the model again with: outcrop compile export"
        )
