"""Running optimum-neuron's exporter, in the Python environment that has it.

What `optimum-cli export neuron` runs is `python3 -m optimum.exporters.neuron` with the same arguments,
through a shell and without quoting them (optimum/commands/export/neuronx.py of huggingface/optimum-neuron
v0.4.5), so that module is started here. Not yet run on a device.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from outcrop_compile import interpreter

EXPORTER = "optimum.exporters.neuron"
INSTANCES = ("inf2", "trn1", "trn1n")
"""SUPPORTED_INSTANCE_TYPES of optimum/neuron/utils/instance.py that have NeuronCores of version 2."""

_NEEDED = ("optimum-neuron", "neuronx-cc", "torch-neuronx")
_SILENCE = 60


class ExportFailed(RuntimeError):
    """The exporter cannot be started, or failed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """model: a checkpoint folder or an id on the Hugging Face hub. instance: inf2, trn1 or trn1n. batch:
    requests side by side. length: tokens of context. The type is the checkpoint's: for a decoder the exporter
    ignores its --torch_dtype (optimum/neuron/models/inference/modeling_utils.py, get_neuron_config)."""

    model: str
    out: Path
    instance: str
    tp: int
    batch: int
    length: int

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.instance not in INSTANCES:
            raise ValueError(f"--instance {self.instance}: there are {', '.join(INSTANCES)}, of any size")


def export_command(python: Path, wanted: Wanted) -> list[str]:
    return [
        str(python), "-m", EXPORTER,
        "--model", wanted.model,
        "--task", "text-generation",
        "--instance_type", wanted.instance,
        "--tensor_parallel_size", str(wanted.tp),
        "--batch_size", str(wanted.batch),
        "--sequence_length", str(wanted.length),
        str(wanted.out),
    ]  # fmt: skip


def installed(python: Path, install: str) -> dict[str, str]:
    """The versions of what the exporter needs in an environment. install: the command that installs it, for
    the message. Raises ExportFailed where something is missing."""
    try:
        packages = interpreter.installed(python).packages
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ExportFailed(
            f"{python} cannot be run ({error}); give --python the interpreter of an environment that has "
            f"optimum-neuron, and make one with: {install}"
        ) from None
    if missing := [name for name in _NEEDED if name not in packages]:
        raise ExportFailed(f"{python} has no {', '.join(missing)}; install it with: {install}")
    return {name: packages[name] for name in _NEEDED}


def run_export(command: list[str], say: Callable[[str], None]) -> None:
    """Run the exporter with its output on ours, and say each minute that it still runs: a compilation may be
    silent for long. Raises ExportFailed."""
    minutes = 0
    with subprocess.Popen(command) as process:
        try:
            while True:
                try:
                    status = process.wait(_SILENCE)
                    break
                except subprocess.TimeoutExpired:
                    minutes += 1
                    say(f"exporting for {minutes} min")
        except BaseException:
            process.terminate()
            raise
    if status:
        raise ExportFailed(
            f"optimum-neuron's exporter ended with status {status}; what it wrote above says why. "
            f"It was: {shlex.join(command)}"
        )
