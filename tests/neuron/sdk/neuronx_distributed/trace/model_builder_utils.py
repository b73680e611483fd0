"""What NxDModel.add takes (src/neuronx_distributed/trace/model_builder_utils.py)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass
class ModelParamInfo:
    param_name: str
    is_positional: bool


@dataclass
class ProvidedArgInfo:
    param_name: str
    is_positional: bool
    tensor: Tensor


@dataclass
class TraceArtifacts:
    hlo: Any
    metaneff: Any
    flattener: Any
    packer: Any
    weight_name_to_idx: dict[str, int]
    weight_names_to_skip: set[str]
    provided_args: list[ProvidedArgInfo]
    model_params: list[ModelParamInfo]


@dataclass
class CompilationArtifacts:
    neff_filepath: str

    def get_neff_bytes(self) -> bytes:
        return Path(self.neff_filepath).read_bytes()
