"""Folders of optimum-neuron: made through its exporter's command line, listed, and told to vLLM."""

import json
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from outcrop.backends.vllm.exported import exported_arguments
from outcrop.cli.main import app
from outcrop.engine.config import EngineConfig
from outcrop_compile.optimum_neuron.export import Wanted
from outcrop_compile.optimum_neuron.exported import NotExported, read_exported

CONFIG: dict[str, Any] = {
    "_serialized_key": "NxDNeuronConfig", "optimum_neuron_version": "0.4.5",
    "neuronxcc_version": "2.21.33363.0+82129205", "checkpoint_id": "unsloth/Llama-3.2-1B-Instruct",
    "checkpoint_revision": "9b58d4a36161a1e49ecf0a69d20b2736fef8e438", "batch_size": 4,
    "sequence_length": 4096, "tp_degree": 2, "pp_degree": 1, "ep_degree": 1, "torch_dtype": "bfloat16",
    "continuous_batching": True, "max_batch_size": 4, "target": "trn1", "on_device_sampling": True,
    "max_context_length": 4096, "n_active_tokens": 4096, "speculation_length": 0, "local_ranks_size": 2,
}  # fmt: skip
"""As NxDNeuronConfig writes it (huggingface/optimum-neuron v0.4.5)."""

EXPORTER = '''
"""Takes the arguments of optimum.exporters.neuron that are used, and refuses others."""
import argparse, json, pathlib, sys
parser = argparse.ArgumentParser()
parser.add_argument("-m", "--model", required=True)
parser.add_argument("output", type=pathlib.Path)
parser.add_argument("--task")
parser.add_argument("--instance_type", choices=["trn1", "inf2", "trn1n", "trn2"])
for name in ("--tensor_parallel_size", "--batch_size", "--sequence_length"):
    parser.add_argument(name, type=int)
given = parser.parse_args()
if given.model == "broken model":
    sys.exit(3)
config = json.loads(CONFIG) | {
    "checkpoint_id": None if pathlib.Path(given.model).is_dir() else given.model,
    "tp_degree": given.tensor_parallel_size,
    "batch_size": given.batch_size,
    "sequence_length": given.sequence_length,
}
given.output.mkdir()
(given.output / "neuron_config.json").write_text(json.dumps(config))
(given.output / "model.pt").write_bytes(b"graphs")
'''


def outcrop(*words: object) -> Result:
    return CliRunner().invoke(app, ["compile", *map(str, words)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "exported"
    (path / "checkpoint/weights").mkdir(parents=True)
    (path / "neuron_config.json").write_text(json.dumps(CONFIG))
    (path / "model.pt").write_bytes(b"graphs")
    (path / "checkpoint/weights/tp0_sharded_checkpoint.safetensors").write_bytes(b"weights")
    cache = path / "neuronxcc-2.21.33363.0+82129205/MODULE_123+abc"
    cache.mkdir(parents=True)
    (cache / "model.neff").write_bytes(b"neff")
    return path


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An interpreter that finds a stand-in for the exporter and the packages it needs."""
    site = tmp_path / "site"
    module = site / "optimum/exporters/neuron"
    module.mkdir(parents=True)
    (module / "__main__.py").write_text(f"CONFIG = {json.dumps(json.dumps(CONFIG))}\n{EXPORTER}")
    for name, version in (("optimum_neuron", "0.4.5"), ("neuronx_cc", "2.21"), ("torch_neuronx", "2.8")):
        (site / f"{name}-{version}.dist-info").mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (site / f"{name}-{version}.dist-info/METADATA").write_text(text)
    paths = filter(None, [str(site), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return Path(sys.executable)


def test_a_folder_is_read_and_listed(folder: Path) -> None:
    found = read_exported(folder)
    assert (found.graphs, found.weights) == (("model.pt",), True)
    assert found.neffs == ("neuronxcc-2.21.33363.0+82129205/MODULE_123+abc/model.neff",)
    expected = {
        "key": "exported", "model": "unsloth/Llama-3.2-1B-Instruct", "instance": "trn1", "tp": 2,
        "dtype": "bfloat16", "max_model_len": 4096, "rows": 4, "buckets": 2,
        "sdk": "optimum-neuron 0.4.5, neuronx-cc 2.21.33363.0+82129205", "gib": 0.0,
    }  # fmt: skip
    for store in (folder, folder.parent):
        assert json.loads(outcrop("list", "--store", store, "--json").stdout) == [expected]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"neuronxcc_version": ...}, "lacks neuronxcc_version, so optimum-neuron did not write it"),
        ({"tp_degree": "two"}, "tp_degree is 'two', not a number of at least 1"),
        ({"batch_size": 0}, "batch_size is 0, not a number of at least 1"),
        ({"torch_dtype": None}, "torch_dtype is None, not a text"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(folder: Path, change: dict[str, Any], problem: str) -> None:
    config = {name: value for name, value in (CONFIG | change).items() if value is not ...}
    (folder / "neuron_config.json").write_text(json.dumps(config))
    with pytest.raises(NotExported, match=problem):
        read_exported(folder)
    listed = outcrop("list", "--store", folder.parent)
    assert (listed.exit_code, problem in listed.stderr) == (2, True)
    (folder / "neuron_config.json").write_text("{")
    with pytest.raises(NotExported, match="is no JSON"):
        read_exported(folder)


def test_a_model_is_exported_by_its_command_line(python: Path, tmp_path: Path) -> None:
    out = tmp_path / "a folder"
    words = ("--with", "optimum-neuron", "--model", "org/model", "--instance", "inf2.8xlarge", "--tp", 2)
    result = outcrop(
        "export", *words, "--batch", 8, "--max-model-len", 2048, "--out", out, "--python", python
    )
    assert result.exit_code == 0, result.output
    assert "optimum-neuron 0.4.5, neuronx-cc 2.21, torch-neuronx 2.8" in result.stderr
    assert f"outcrop serve --backend vllm --model '{out}' --python {python}" in result.stdout
    found = read_exported(out)
    assert (found.model, found.tp, found.batch, found.length) == ("org/model", 2, 8, 2048)
    again = outcrop("export", *words, "--out", out, "--python", python)
    assert (again.exit_code, "something is there already" in again.stderr) == (2, True)


def test_what_cannot_be_exported_is_refused(python: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--instance", "inf2.8xlarge", "--tp", 2, "--out", out, "--python", python)
    failed = outcrop("export", "--model", "broken model", *words)
    assert (failed.exit_code, "ended with status 3" in failed.stderr) == (2, True)
    assert "--model 'broken model'" in failed.stderr
    other = outcrop("export", "--with", "tensorrt", "--model", "m", *words)
    assert (other.exit_code, "there is optimum-neuron" in other.stderr) == (2, True)
    with pytest.raises(ValueError, match="--instance g5: there are inf2, trn1, trn1n"):
        Wanted("m", out, "g5", 1, 1, 128)


def test_without_optimum_neuron_it_says_how_to_get_it(tmp_path: Path) -> None:
    words = ("--model", "m", "--instance", "inf2.8xlarge", "--tp", 2, "--out", tmp_path / "out")
    result = outcrop("export", *words)
    assert result.exit_code == 2
    assert "has no optimum-neuron, neuronx-cc, torch-neuronx" in result.stderr
    assert "'optimum-neuron[neuronx,vllm]'" in result.stderr
    result = outcrop("export", *words, "--python", tmp_path / "none")
    assert (result.exit_code, "cannot be run" in result.stderr) == (2, True)


def test_vllm_is_told_what_was_compiled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", {"optimum-neuron": "0.4.5"}.__getitem__)
    config = EngineConfig(str(folder), "vllm", max_rows=0)
    assert exported_arguments(config, "optimum-neuron") == {
        "tensor_parallel_size": 2, "max_num_seqs": 4, "max_model_len": 4096, "dtype": "bfloat16",
    }  # fmt: skip
    assert exported_arguments(EngineConfig(str(folder.parent), "vllm"), "vllm") == {}
    with pytest.raises(ValueError, match=r"served by its vLLM plug-in; this is vllm-neuron"):
        exported_arguments(config, "vllm-neuron")
    with pytest.raises(ValueError, match=r"max_rows: .* compiled for 4, not 5"):
        exported_arguments(EngineConfig(str(folder), "vllm", max_rows=5), "optimum-neuron")
    with pytest.raises(ValueError, match=r"max_model_len: .* compiled for 4096 tokens, not 8192"):
        exported_arguments(
            EngineConfig(str(folder), "vllm", max_rows=0, max_model_len=8192), "optimum-neuron"
        )
    monkeypatch.setattr(metadata, "version", {"optimum-neuron": "0.4.6"}.__getitem__)
    with pytest.raises(ValueError, match=r"exported by optimum-neuron 0.4.5, and 0.4.6 is installed"):
        exported_arguments(config, "optimum-neuron")
