"""Models that are imported are served as the first configured one is."""

from pathlib import Path

import pytest
from demo import PATH

from outcrop.api.imports.registry import ModelFiles
from outcrop.catalog.model import ServedModel
from outcrop.engine.client import EngineClient
from outcrop.http_server import load_imported
from outcrop.settings import ModelSettings


def imported(like: ModelSettings) -> ServedModel:
    def no_engine(model: ModelSettings) -> EngineClient:
        raise AssertionError("nobody has asked for the model")

    arn = "arn:aws:bedrock:us-east-1:123456789012:imported-model/abcdefgh1234"
    return load_imported(like, no_engine, ModelFiles(PATH, "abcdefgh1234", "mine", arn))


def test_the_block_of_an_imported_models_prefix_cache(tmp_path: Path) -> None:
    assert imported(ModelSettings(path=PATH, block_size=16)).cache_block == 16
    assert imported(ModelSettings(path=PATH, prefix_cache=False)).cache_block == 0
    assert imported(ModelSettings(path=tmp_path, backend="vllm")).cache_block == 0  # vLLM's own choice


def test_no_server_that_runs_already_answers_for_an_imported_model(tmp_path: Path) -> None:
    like = ModelSettings(path=tmp_path, backend="vllm", url="http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"http://127.0.0.1:9 serves its own weights"):
        imported(like)
