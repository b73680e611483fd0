"""What each replica has of a machine."""

import os
from pathlib import Path

import pytest
from artifacts import SHAPES, write_artifact
from demo import PATH

from outcrop.engine.config import EngineConfig
from outcrop.replica_configs import cache_block, exclude_each_other, replica_configs, rows
from outcrop.settings import ModelSettings
from outcrop_compile.processors import divided_processors


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """Of two ranks."""
    write_artifact(tmp_path)
    return tmp_path


def neuron(artifact: Path, **settings: object) -> list[EngineConfig]:
    model = ModelSettings.model_validate({"backend": "neuron", "artifact": artifact} | settings)
    return replica_configs(model)


def test_replicas_have_consecutive_neuron_cores(artifact: Path) -> None:
    assert [each.cores for each in neuron(artifact, replicas=3)] == ["0-1", "2-3", "4-5"]
    assert [each.cores for each in neuron(artifact, replicas=2, cores="8-11")] == ["8-9", "10-11"]
    (alone,) = neuron(artifact)
    assert alone.cores is None  # the machine's first, as the backend finds them
    with pytest.raises(ValueError, match=r"cores 8-12 are 5, but 2 replicas .* \(target.tp\) take 4: .*8-11"):
        neuron(artifact, replicas=2, cores="8-12")


def test_engines_on_the_same_neuron_cores_exclude_each_other(artifact: Path) -> None:
    running = neuron(artifact, replicas=2)
    assert exclude_each_other(running, running)
    assert exclude_each_other(running, neuron(artifact))
    assert not exclude_each_other(running, neuron(artifact, replicas=2, cores="4-7"))
    cpu = replica_configs(ModelSettings(path=PATH, replicas=2))
    assert not exclude_each_other(cpu, cpu)


def test_replicas_without_an_artifact_have_equal_parts_of_the_neuron_cores(tmp_path: Path) -> None:
    def legacy(**settings: object) -> list[EngineConfig]:
        values = {"path": tmp_path, "backend": "transformers-neuronx", "cores": "0-7"} | settings
        return replica_configs(ModelSettings.model_validate(values))

    running = legacy(replicas=2)
    assert [each.cores for each in running] == ["0-3", "4-7"]
    assert [each.processors for each in running] == [(), ()]
    assert exclude_each_other(running, legacy())
    assert not exclude_each_other(running, legacy(cores="8-11"))
    with pytest.raises(ValueError, match=r"cores 0-7 are 8, which 3 replicas cannot have equal parts of"):
        legacy(replicas=3)


def test_replicas_on_a_cpu_have_processors_of_their_own() -> None:
    configs = replica_configs(ModelSettings(path=PATH, replicas=2, max_rows=7))
    assert [each.processors for each in configs] == divided_processors(2)
    assert {each.max_rows for each in configs} == {7}
    assert replica_configs(ModelSettings(path=PATH))[0].processors == ()
    assert replica_configs(ModelSettings(path=PATH, backend="fake", replicas=3))[2].processors == ()


def test_processors_are_divided_by_cores_of_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sockets of two cores of two processors each, numbered as Linux does."""
    for processor in range(8):
        folder = tmp_path / f"cpu{processor}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{processor % 4},{processor % 4 + 4}\n")
        (folder / "physical_package_id").write_text(f"{processor % 2}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert divided_processors(1, tmp_path) == [(0, 4, 2, 6, 1, 5, 3, 7)]
    assert divided_processors(2, tmp_path) == [(0, 4, 2, 6), (1, 5, 3, 7)]
    assert divided_processors(3, tmp_path) == [(0, 4), (2, 6), (1, 5, 3, 7)]
    assert divided_processors(6, tmp_path) == [(0, 4), (2, 6), (1, 5), (3, 7), (0, 4), (2, 6)]


def test_the_block_of_the_prefix_cache(artifact: Path) -> None:
    assert cache_block(ModelSettings(path=PATH, block_size=16)) == 16
    assert cache_block(ModelSettings(path=PATH, prefix_cache=False)) == 0
    built = ModelSettings.model_validate({"backend": "neuron", "artifact": artifact})
    assert cache_block(built) == SHAPES.block_size


def test_requests_that_all_replicas_run_at_once(artifact: Path) -> None:
    assert rows(ModelSettings(path=PATH, max_rows=7, replicas=2)) == 14
    built = {"backend": "neuron", "artifact": artifact, "replicas": 3}
    assert rows(ModelSettings.model_validate(built)) == 3 * SHAPES.max_rows


def test_what_vllm_chooses_is_not_known(tmp_path: Path) -> None:
    chosen = ModelSettings(path=tmp_path, backend="vllm")
    assert (cache_block(chosen), rows(chosen)) == (0, 0)
    told = ModelSettings(path=tmp_path, backend="vllm", block_size=16, max_rows=5, replicas=2)
    assert (cache_block(told), rows(told)) == (16, 10)
