"""The model definition against transformers, its step semantics, and its tensor-parallel sharding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paged import KV, TOKENS, build, chosen, logits, run_rank
from ranks import run_processes
from tiny_models import LLAMA_31, LLAMA_32, ROPE_31, tiny_model, write_huggingface
from transformers import LlamaForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from outcrop_compile.checkpoint import open_checkpoint
from outcrop_compile.llama import PagedLlama, rope_frequencies
from outcrop_kernels.cpu.native.library import available
from outcrop_kernels.registry import Target

SHAPES = {
    "Llama 3.1": LLAMA_31,
    "Llama 3.2": LLAMA_32,
    "Llama 3": LLAMA_31 | {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
    "multi-head": LLAMA_32 | {"num_key_value_heads": 4, "tie_word_embeddings": False},
    # A short original context, so that 300 positions reach all three bands of the frequency scaling.
    "stretched": LLAMA_31
    | {"rope_parameters": {"rope_theta": 10000.0, **ROPE_31, "original_max_position_embeddings": 64}},
}


@pytest.mark.parametrize("target", ["reference", "cpu"])
@pytest.mark.parametrize("shape", SHAPES)
def test_teacher_forced_logits_are_transformers_logits(shape: str, target: Target, tmp_path: Path) -> None:
    judge = tiny_model(SHAPES[shape])
    model = build(write_huggingface(judge, tmp_path / "model"), target)
    tokens = torch.randint(0, 320, (300,), dtype=torch.int32)
    with torch.inference_mode():
        expected = judge(tokens[None].long()).logits[0]
    for cuts in ((300,), (1, 2, 17, 160, 161, 300)):
        assert float((logits(model, tokens, cuts) - expected).abs().max()) <= 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_rope_frequencies_are_transformers_frequencies(shape: str, tmp_path: Path) -> None:
    judge = tiny_model(SHAPES[shape])
    config = open_checkpoint(write_huggingface(judge, tmp_path / "model")).config
    kind = judge.config.rope_parameters["rope_type"]
    if kind == "default":
        expected = 1.0 / 500000.0 ** (torch.arange(0, config.head_dim, 2).float() / config.head_dim)
    else:
        expected, _ = ROPE_INIT_FUNCTIONS[kind](judge.config, "cpu")
    torch.testing.assert_close(rope_frequencies(config), expected, rtol=1e-6, atol=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_huggingface(tiny_model(LLAMA_32), tmp_path_factory.mktemp("tiny") / "model")


def step(model: PagedLlama, **changes: Any) -> tuple[list[int], list[int]]:
    """One step of two rows, each of one token at position 0, changed as the test wants."""
    arguments: dict[str, Any] = {
        "token_ids": [[5], [6]], "use_last": [[0], [0]], "positions": [[0], [0]],
        "slot_mapping": [[0], [16]], "block_tables": [[0], [1]], "logits_idx": [0, 0],
        "sampled": [1, 1], "slots": [0, 1],
    }  # fmt: skip
    arguments |= changes
    rows = len(arguments["slots"])
    arguments = {"sampling": torch.zeros(rows, 4), "draws": torch.zeros(rows)} | arguments
    tensors = {name: torch.as_tensor(value) for name, value in arguments.items()}
    with torch.inference_mode():
        tokens, finite = model(
            **{name: t if t.is_floating_point() else t.int() for name, t in tensors.items()}
        )
    return tokens.tolist(), finite.tolist()


def test_a_sampled_token_is_kept_on_the_device_for_the_next_step(folder: Path) -> None:
    model = build(folder)
    first, finite = step(model)
    assert finite == [1, 1]
    assert model.last_token[:2].tolist() == first
    following = {"positions": [[1], [1]], "slot_mapping": [[1], [17]]}
    by_device, _ = step(model, use_last=[[1], [1]], token_ids=[[0], [0]], **following)
    again = build(folder)
    step(again)
    by_host, _ = step(again, token_ids=[[first[0]], [first[1]]], **following)
    assert by_device == by_host


def test_a_row_that_does_not_sample_leaves_the_token_table_alone(folder: Path) -> None:
    model = build(folder)
    model.last_token = torch.tensor([11, 12, 13, 14, 15], dtype=torch.int32)
    tokens, _ = step(model, sampled=[0, 1])
    assert model.last_token[:4].tolist() == [11, tokens[1], 13, 14]


def test_padding_lanes_change_no_other_row(folder: Path) -> None:
    sink = KV.num_blocks
    alone, _ = step(build(folder))
    padded = build(folder)
    tokens, _ = step(
        padded,
        token_ids=[[5, 0], [6, 0], [0, 0]], use_last=[[0, 0]] * 3, positions=[[0, 0]] * 3,
        slot_mapping=[[0, sink * 16], [16, sink * 16], [sink * 16, sink * 16]],
        block_tables=[[0, sink], [1, sink], [sink, sink]],
        logits_idx=[0, 0, 0], sampled=[1, 1, 0], slots=[0, 1, KV.max_rows],
    )  # fmt: skip
    assert tokens[:2] == alone
    assert padded.last_token[:2].tolist() == alone


def test_every_input_and_output_is_int32_or_float32(folder: Path) -> None:
    model = build(folder)
    tokens, finite = model(
        *(torch.zeros(1, 1, dtype=torch.int32) for _ in range(5)),
        *(torch.zeros(1, dtype=torch.int32) for _ in range(3)),
        torch.zeros(1, 4),
        torch.zeros(1),
    )
    assert (tokens.dtype, finite.dtype, model.last_token.dtype) == (torch.int32,) * 3


@pytest.mark.parametrize("target", ["reference", "cpu", "native"])
def test_a_verify_step_chooses_what_decode_steps_would(folder: Path, target: Target) -> None:
    """Two rows: one with three guesses, the last one wrong; the other with one, a wrong one."""
    if target == "native" and not available():
        pytest.skip("the native kernels were not built")
    decoding, draws = build(folder, target), torch.rand(2, 4)
    sampling = torch.tensor([[0.9, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    chosen, tokens = [], [5, 6]
    for place in range(4):
        where = {"positions": [[place], [place]], "slot_mapping": [[place], [16 + place]]}
        tokens, _ = step(
            decoding,
            token_ids=[[token] for token in tokens],
            **where,
            sampling=sampling,
            draws=draws[:, place],
        )
        chosen.append(tokens)
    first, second = zip(*chosen, strict=True)
    verifying = build(folder, target)
    verifying.last_token[0] = 5
    sink = KV.num_blocks * 16
    got, finite = step(
        verifying,
        token_ids=[[0, first[0], first[1], (first[2] + 1) % 320], [6, (second[0] + 1) % 320, 0, 0]],
        use_last=[[1, 0, 0, 0], [0, 0, 0, 0]],
        positions=[[0, 1, 2, 3], [0, 1, 0, 0]], slot_mapping=[[0, 1, 2, 3], [16, 17, sink, sink]],
        logits_idx=[3, 1], sampling=sampling, draws=draws,
    )  # fmt: skip
    assert (got[0][:3], got[1][0], finite) == (list(first[:3]), second[0], [1, 1])
    assert verifying.last_token[:2].tolist() == [first[2], second[0]]
    # What the wrong guess left behind is written over.
    place = {"positions": [[3], [1]], "slot_mapping": [[3], [17]]}
    after, _ = step(verifying, use_last=[[1], [1]], **place, sampling=sampling, draws=draws[[0, 1], [3, 1]])
    assert after == [first[3], second[1]]


# -- tensor parallel -----------------------------------------------------------------------------


# Two kv heads for two ranks; one that two share; one that four share, for whose three query heads and 770
# rows of the MLP they have four places and 772, and 200 columns for 198 of the hidden state.
DIVIDED = {
    "divided": (2, LLAMA_32),
    "copied": (2, LLAMA_31),
    "padded": (4, LLAMA_31 | {"num_attention_heads": 3, "hidden_size": 198, "intermediate_size": 770}),
}


@pytest.mark.parametrize("case", ["divided", "padded", pytest.param("copied", marks=pytest.mark.slow)])
def test_ranks_together_compute_what_one_computes_alone(case: str, tmp_path: Path) -> None:
    """Processes over gloo."""
    world, shape = DIVIDED[case]
    judge: LlamaForCausalLM = tiny_model(shape)
    folder = write_huggingface(judge, tmp_path / "model")
    run_processes(run_rank, world, str(folder), str(tmp_path))
    alone = logits(build(folder), TOKENS, (40,))
    for rank in range(world):
        together = torch.from_numpy(np.load(tmp_path / f"rank{rank}.npy"))
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)
        assert np.load(tmp_path / f"chosen{rank}.npy").tolist() == chosen(build(folder)).tolist()
