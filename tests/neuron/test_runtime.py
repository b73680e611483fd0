"""The module that touches the Neuron runtime, over a stand-in for the SDK that has the original's names."""

import shutil
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from outcrop.backends.base import blank_step
from outcrop.backends.neuron.backend import NeuronBackend
from outcrop.backends.neuron.cores import cores_of, format_cores, parse_cores
from outcrop.backends.neuron.devices import architecture, core_count, uncorrectable_errors
from outcrop.backends.neuron.launch import open_backend
from outcrop.backends.neuron.runtime import CompilationForbidden, NeuronUnavailable, NxdRuntime, claim
from outcrop.engine.config import EngineConfig
from outcrop_compile.artifact import Artifact, ArtifactMismatch, open_artifact

SDK = Path(__file__).parent / "sdk"
PACKAGES = ("torch_neuronx", "libneuronxla", "neuronx_distributed")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As a process is that has not imported the SDK, nor said which cores it wants."""
    for name in [each for each in sys.modules if each.partition(".")[0] in PACKAGES]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("NEURON_RT_VISIBLE_CORES", "NEURON_RT_EXEC_TIMEOUT", "NEURON_RT_STOCHASTIC_ROUNDING_EN",
                 "NEURON_PROCESS_TAG"):  # fmt: skip
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


def load(artifact: Path, cores: range) -> NxdRuntime:
    return NxdRuntime(open_artifact(artifact), cores, lambda stage, fraction: None)


def test_the_cores_are_claimed_before_the_sdk_is_imported(fresh: pytest.MonkeyPatch, artifact: Path) -> None:
    fresh.syspath_prepend(SDK)
    runtime = load(artifact, range(3, 4))
    assert sys.modules["torch_neuronx"].visible_cores == "3"
    runtime.close()
    with pytest.raises(NeuronUnavailable, match="was imported before NEURON_RT_VISIBLE_CORES was set"):
        claim(range(4, 5))


def test_a_step_runs_and_a_compilation_after_warm_up_does_not(
    fresh: pytest.MonkeyPatch, artifact: Path
) -> None:
    fresh.syspath_prepend(SDK)
    runtime = load(artifact, range(1))
    backend = NeuronBackend(runtime, open_artifact(artifact).manifest, depth=2)
    output = backend.collect(backend.submit(blank_step(backend.buckets[0], backend.capabilities)))
    assert output.finite.dtype == np.uint8
    runtime.forbid_compilation()
    for module in ("libneuronxla", "neuronx_distributed.trace.functions"):
        with pytest.raises(CompilationForbidden):
            sys.modules[module].neuron_xla_compile(b"HLO")
    assert runtime.compilations == 2
    backend.close()
    backend.close()
    assert sys.modules["libneuronxla"].neuron_xla_compile(b"HLO") == b"NEFF"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'raise ImportError("WRONG PACKAGE. Please install the package from Neuron Repository")',
            "placeholders",
        ),
        (
            'raise ImportError("libnrt.so.1: cannot open shared object file")',
            "does not load .*outcrop doctor",
        ),
    ],
)
def test_an_sdk_that_is_none_is_told_from_one_that_is_broken(
    fresh: pytest.MonkeyPatch, artifact: Path, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "torch_neuronx").mkdir()
    (tmp_path / "torch_neuronx" / "__init__.py").write_text(text)
    fresh.syspath_prepend(SDK)
    fresh.syspath_prepend(tmp_path)
    with pytest.raises(NeuronUnavailable, match=rf"{said}.*pip install --extra-index-url .*torch-neuronx=="):
        load(artifact, range(1))


def test_every_graph_is_loaded_from_its_own_files(
    fresh: pytest.MonkeyPatch, artifact: Path, tmp_path: Path
) -> None:
    """With the inputs that it reads, so that a step's are given to it in its order."""
    fresh.syspath_prepend(SDK)
    folder = shutil.copytree(artifact, tmp_path / "own")
    opened = open_artifact(folder)
    first, *others = opened.manifest.buckets
    for kind in ("neff", "metaneff"):
        (folder / f"first.{kind}").write_bytes(f"{kind} of {first.tag}".encode())
    replace = msgspec.structs.replace
    named = {kind: replace(first.hlo, path=f"first.{kind}") for kind in ("neff", "metaneff")}
    first = replace(first, unread=("use_last", "slots"), **named)
    told: list[tuple[str, float]] = []
    manifest = replace(opened.manifest, buckets=(first, *others))
    runtime = NxdRuntime(Artifact(folder, manifest), range(1), lambda *step: told.append(step))
    graphs = runtime._model.graphs
    assert list(graphs) == [each.tag for each in manifest.buckets]
    assert graphs[first.tag].neff == f"neff of {first.tag}".encode()
    assert graphs[first.tag].metaneff.data == f"metaneff of {first.tag}".encode()
    assert graphs[first.tag].read == [
        spec.name for spec in first.inputs if spec.name not in ("use_last", "slots")
    ]
    assert all(graphs[each.tag].read == [spec.name for spec in each.inputs] for each in others)
    assert list(dict.fromkeys(stage for stage, _ in told)) == ["graphs", "weights", "device"]
    runtime.close()


def test_cores_are_written_as_the_runtime_reads_them() -> None:
    assert parse_cores("0-7") == range(8)
    assert parse_cores("5") == range(5, 6)
    assert [format_cores(cores) for cores in (range(8), range(5, 6))] == ["0-7", "5"]
    assert cores_of(None, 2) == range(2)
    assert cores_of("8-15", 8) == range(8, 16)
    with pytest.raises(ValueError, match=r"cores 0-3 are 4.*target\.tp.*--cores 0-1.*--tp 4"):
        cores_of("0-3", 2)
    for wrong in ("", "7-0", "0,1", "all", "-1"):
        with pytest.raises(ValueError, match="such as 0-7"):
            parse_cores(wrong)


def test_the_drivers_figures(tmp_path: Path) -> None:
    assert (core_count(tmp_path), architecture(tmp_path), uncorrectable_errors(tmp_path)) == (None, None, 0)
    for index in range(2):
        device = tmp_path / f"neuron{index}"
        for path, text in (
            ("core_count", "2\n"),
            ("info/architecture/arch_type", "NCv2\n"),
            ("stats/hardware/sram_ecc_uncorrected/total", f"{index}\n"),
            ("stats/hardware/mem_ecc_uncorrected", "3\n"),
        ):
            (device / path).parent.mkdir(parents=True, exist_ok=True)
            (device / path).write_text(text)
    assert (core_count(tmp_path), architecture(tmp_path), uncorrectable_errors(tmp_path)) == (4, "trn1", 7)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"max_model_len": 512}, r"shapes\.max_model_len is 256.*--max-model-len 512"),
        ({"speculative_tokens": 8}, r"shapes\.guesses is 3.*--speculative-tokens 8"),
    ],
)
def test_an_artifact_that_does_not_do_is_refused_by_the_field(
    artifact: Path, changes: dict[str, int], named: str
) -> None:
    with pytest.raises(ArtifactMismatch, match=named):
        open_backend(
            EngineConfig(model="", backend="neuron", artifact=str(artifact), **changes), lambda *told: None
        )


def test_another_models_checkpoint_beside_the_artifact_is_refused(artifact: Path, tmp_path: Path) -> None:
    from tiny_models import LLAMA_31, tiny_model, write_huggingface

    other = write_huggingface(tiny_model(LLAMA_31, num_hidden_layers=1), tmp_path / "other")
    config = EngineConfig(model=str(other), backend="neuron", artifact=str(artifact))
    with pytest.raises(ArtifactMismatch, match=r"model\.config\.hidden_size is 64.*--model .*other"):
        open_backend(config, lambda *told: None)
