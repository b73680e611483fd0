"""The models that the peers run, and where their files are. See weights.py for what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEMO = ROOT / ".demo" / "SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER = ROOT / ".demo" / "peers"


@dataclass(frozen=True, slots=True)
class Model:
    """One set of weights."""

    name: str

    @property
    def directory(self) -> Path:
        """Hugging Face's layout, bfloat16."""
        return FOLDER / self.name

    def gguf(self, kind: str) -> Path:
        """kind: "bf16" or "q8_0"."""
        return FOLDER / f"{self.name}.{kind}.gguf"

    def openvino(self, kind: str) -> Path:
        """A directory in OpenVINO's format. kind: "fp16" or "int8"."""
        return FOLDER / f"{self.name}.openvino-{kind}"


SMOLLM2 = Model("smollm2-135m")
LLAMA_1B = Model("llama-1b-shape")
MODELS = {model.name: model for model in (SMOLLM2, LLAMA_1B)}
