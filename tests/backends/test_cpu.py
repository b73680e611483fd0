"""What is the CPU backend's own; `test_answers.py` has what it shares with the others."""

from pathlib import Path

import numpy as np
import pytest
import torch
from demo import PATH, backend, demo_weights, prompts
from tiny_models import LLAMA_32, tiny_model, write_huggingface

from outcrop.backends.cpu import CpuBackend
from outcrop.engine.core import EngineCore
from outcrop.engine.messages import GenerationRequest, SamplingParams, TokenLogprobs
from outcrop.engine.policy import Interleave
from outcrop_compile.checkpoint import open_checkpoint
from outcrop_compile.weights import WeightType, load_weights
from outcrop_kernels.cpu.native.library import available


@pytest.mark.filterwarnings("ignore")
def test_teacher_forced_logits_equal_transformers() -> None:
    engine, judge = backend(), demo_weights().judge()
    tokens = [token for prompt in prompts() for token in prompt][:300]
    with torch.inference_mode():
        expected = judge(torch.tensor([tokens])).logits[0]
        blocks = np.arange(32, dtype=np.int32)[::-1].copy()
        worst = 0.0
        for start, end in ((0, 128), (128, 131), (131, 132), (132, 300)):
            positions = np.arange(start, end, dtype=np.int32)
            hidden = engine.model.hidden_states(
                torch.tensor([tokens[start:end]], dtype=torch.int32),
                torch.from_numpy(positions[None]),
                torch.from_numpy(blocks[positions // 16] * 16 + positions % 16),
                torch.from_numpy(blocks[None]),
            )
            logits = engine.model.logits(hidden)
            worst = max(worst, float((logits - expected[start:end]).abs().max()))
    assert worst <= 1e-3


def test_bfloat16_runs_and_stays_close_to_float32() -> None:
    checkpoint = open_checkpoint(PATH)
    engine = CpuBackend(
        checkpoint.config, load_weights(checkpoint, dtype="bfloat16"),
        kv_memory=64 << 20, max_model_len=256, max_rows=4, block_size=16, depth=2, threads=None,
        native=available(),
    )  # fmt: skip
    assert engine.dtype == torch.bfloat16
    exact = backend()
    tokens = torch.tensor([prompts()[3]], dtype=torch.int32)
    positions = torch.arange(tokens.shape[1], dtype=torch.int32)[None]
    table = torch.arange(16, dtype=torch.int32)[None]
    with torch.inference_mode():
        ours, wanted = (
            each.model.logits(each.model.hidden_states(tokens, positions, positions, table))
            for each in (engine, exact)
        )
    agreement = torch.nn.functional.cosine_similarity(ours, wanted, dim=-1)
    assert float(agreement.min()) > 0.99


@pytest.mark.filterwarnings("ignore")
def test_log_probabilities_equal_transformers() -> None:
    """Those of the model, whatever is done to the logits afterwards."""
    core = EngineCore(backend(), Interleave())
    cases = [
        SamplingParams(6, logprobs=20),
        SamplingParams(6, 0.9, seed=4, logprobs=0),
        SamplingParams(6, 0.7, seed=5, logprobs=3, logit_bias={11: 4.0}, repetition_penalty=1.5),
        SamplingParams(6),
    ]
    requests = {
        str(number): GenerationRequest(str(number), prompt, sampling)
        for number, (prompt, sampling) in enumerate(zip(prompts(), cases, strict=False))
    }
    for request in requests.values():
        core.add(request)
    tokens: dict[str, list[int]] = {name: [] for name in requests}
    told: dict[str, list[TokenLogprobs]] = {name: [] for name in requests}
    while not core.idle:
        for delta in core.step():
            tokens[delta.request_id] += delta.tokens
            told[delta.request_id] += delta.logprobs
    judge = demo_weights().judge()
    for name, request in requests.items():
        most = request.sampling.logprobs
        if most is None:
            assert told[name] == []
            continue
        assert len(told[name]) == len(tokens[name]) == 6
        with torch.inference_mode():
            logits = judge(torch.tensor([request.prompt + tokens[name]])).logits[
                0, len(request.prompt) - 1 : -1
            ]
        wanted = torch.log_softmax(logits, dim=-1)
        for place, (token, each) in enumerate(zip(tokens[name], told[name], strict=True)):
            assert each.logprob == pytest.approx(float(wanted[place, token]), abs=2e-3)
            values, ids = wanted[place].topk(most)
            assert [likely for likely, _ in each.likeliest] == ids.tolist()
            assert [logprob for _, logprob in each.likeliest] == pytest.approx(values.tolist(), abs=2e-3)


@pytest.mark.skipif(not available(), reason="the native kernels were not built")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_vocabulary_of_any_size_is_served(dtype: WeightType, tmp_path: Path) -> None:
    """A fine-tune's few added tokens make a head that is no whole number of panels."""
    path = write_huggingface(tiny_model(LLAMA_32, vocab_size=517), tmp_path)
    checkpoint = open_checkpoint(path)
    wanted = [
        GenerationRequest(str(index), [3, 5, 7 + index], SamplingParams(12, temperature, seed=4))
        for index, temperature in enumerate((0.0, 0.9, 0.0))
    ]
    answers = []
    for native in (True, False):
        engine = CpuBackend(
            checkpoint.config,
            load_weights(checkpoint, dtype=dtype, plain="bfloat16" if native else "float32"),
            kv_memory=16 << 20, max_model_len=128, max_rows=4, block_size=16, depth=2, threads=1,
            native=native,
        )  # fmt: skip
        engine.warmup(lambda stage, fraction: None)
        core, tokens = EngineCore(engine, Interleave()), {}
        for request in wanted:
            core.add(request)
        while not core.idle:
            for delta in core.step():
                tokens[delta.request_id] = [*tokens.get(delta.request_id, []), *delta.tokens]
        engine.close()
        answers.append(tokens)
    assert {len(tokens) for tokens in answers[0].values()} == {12}
    if dtype == "float32":
        assert answers[0] == answers[1]


def test_too_little_kv_memory_is_named_with_what_would_do() -> None:
    with pytest.raises(ValueError, match=r"kv_memory 1 MiB holds \d+ tokens.* give at least 23 MiB"):
        backend(kv_memory=1 << 20)


def test_without_a_limit_the_context_is_what_the_memory_holds() -> None:
    caps = backend(kv_memory=23 << 20, max_model_len=None).capabilities
    assert caps.max_model_len == caps.num_blocks * caps.block_size <= 512
    assert backend(kv_memory=1 << 30, max_model_len=None).capabilities.max_model_len == 8192
