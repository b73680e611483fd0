"""Llama 3 frequency scaling recovered from the table that GGUF files hold."""

import numpy as np
import pytest
import torch
from tiny_models import LLAMA_31, rope_freqs, tiny_model, write_gguf
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from outcrop_compile.checkpoint import CheckpointError, open_checkpoint
from outcrop_compile.checkpoint.rope import divisors, from_divisors
from outcrop_compile.config import RopeScaling

KNOWN = [RopeScaling(8.0, 1.0, 4.0, 8192), RopeScaling(32.0, 1.0, 4.0, 8192)]
UNUSUAL = [RopeScaling(16.0, 1.0, 3.0, 4096), RopeScaling(4.5, 1.0, 8.0, 32768)]


def transformers_config(scaling: RopeScaling, head_dim: int) -> LlamaConfig:
    parameters = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_position_embeddings,
    }  # fmt: skip
    return LlamaConfig(head_dim=head_dim, max_position_embeddings=131072, rope_parameters=parameters)


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("scaling", KNOWN + UNUSUAL)
def test_divided_frequencies_are_those_of_transformers(scaling, head_dim):
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](transformers_config(scaling, head_dim), torch.device("cpu"))
    plain = 500000.0 ** -(np.arange(0, head_dim, 2) / head_dim)
    np.testing.assert_allclose(plain / divisors(scaling, 500000.0, head_dim), expected.numpy(), rtol=2e-6)


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("scaling", KNOWN + UNUSUAL)
def test_recovered(scaling, head_dim):
    table = rope_freqs(transformers_config(scaling, head_dim))
    assert from_divisors(table, 500000.0, head_dim) == scaling


def test_an_equivalent_scaling_is_as_good():
    """(original, low, high) and a multiple of it are the same frequencies."""
    table = divisors(RopeScaling(8.0, 2.0, 8.0, 16384), 500000.0, 128)
    assert from_divisors(table, 500000.0, 128) == RopeScaling(8.0, 1.0, 4.0, 8192)


def test_a_table_of_ones_is_no_scaling():
    assert from_divisors(np.ones(64, np.float32), 500000.0, 128) is None


@pytest.mark.parametrize(
    "table",
    [
        np.linspace(1, 8, 64),
        np.full(64, 4.0),
        np.full(64, 0.5),
        np.zeros(64),
        np.full(64, np.nan),
        np.ones(32),
        np.where(np.arange(64) < 32, 8.0, 1.0),
    ],
)
def test_other_tables_are_refused(table):
    with pytest.raises(ValueError, match="not"):
        from_divisors(table, 500000.0, 128)


def test_a_file_with_another_table_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tiny_models.rope_freqs", lambda _: np.linspace(1, 8, 64, dtype=np.float32))
    file = write_gguf(tiny_model(LLAMA_31), tmp_path / "model.gguf")
    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight"):
        open_checkpoint(file)
