"""What the comparison with other servers rests on: the same weights everywhere, prompts nobody has seen, and
a bound and ratios that are computed as they are described."""

import numpy as np
import pytest
from benchmarks.load.figures import Figures
from benchmarks.peers import report
from benchmarks.peers.bound import bound
from benchmarks.peers.limits import Limits
from benchmarks.peers.record import Measurement, Record, Round, Subject
from benchmarks.peers.weights import random_weights, write_directory, write_gguf
from benchmarks.peers.workloads import WORKLOADS, Workload

from outcrop_compile.checkpoint import open_checkpoint
from outcrop_compile.config import LlamaConfig

TINY = LlamaConfig(
    vocab_size=49184,
    hidden_size=32,
    intermediate_size=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    context=128,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    rope_scaling=None,
    tie_embeddings=True,
)


@pytest.mark.slow
def test_every_format_holds_the_same_values(tmp_path):
    folder, file = tmp_path / "hf", tmp_path / "model.gguf"
    folder.mkdir()
    write_directory(folder, TINY, random_weights(TINY))
    one = open_checkpoint(folder)
    write_gguf(file, "bf16", one)
    other = open_checkpoint(file)
    assert other.config == one.config
    for name in one.names():
        np.testing.assert_array_equal(other.read(name), one.read(name))


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_prompts_share_their_beginning_within_a_round_and_nothing_between_rounds(workload):
    rounds = [[request.prompt for request in workload.requests(seed)[1]] for seed in (1, 2)]
    for prompts in rounds:
        assert [len(prompt) for prompt in prompts] == list(workload.prompts)
        beginnings = {tuple(prompt[: workload.shared]) for prompt in prompts}
        assert len(beginnings) == 1
        assert len({tuple(prompt[workload.shared :][:8]) for prompt in prompts}) == len(prompts)
    assert not {tuple(p[:8]) for p in rounds[0]} & {tuple(p[:8]) for p in rounds[1]}


def test_the_bound_counts_bytes_for_one_call_and_products_for_many():
    layers, head = 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32), TINY.vocab_size * 32
    workload = Workload("", "", "", (4,), 3)
    kv = (4 + 1.5) * 2 * 2 * 2 * 8 * 2
    memory = bound(workload, TINY, "bf16", Limits(bandwidth=1e3, fma=1e30, gemm_float32=0, gemm_bfloat16=0))
    assert memory.prefill == pytest.approx((layers + head) * 2 / 1e3)
    assert memory.decode == pytest.approx(2 * ((layers + head) * 2 + kv) / 1e3)
    int8 = bound(workload, TINY, "int8", Limits(bandwidth=1e3, fma=1e30, gemm_float32=0, gemm_bfloat16=0))
    assert int8.prefill == pytest.approx(memory.prefill / 2)

    pair = 2 * 2 * 4 * 8
    compute = bound(
        workload, TINY, "bf16", Limits(bandwidth=1e30, fma=1e3, gemm_float32=2e3, gemm_bfloat16=0)
    )
    assert compute.prefill == pytest.approx((4 * layers + head + 8 * pair) / 2e3)
    assert compute.decode == pytest.approx(2 * (layers + head + 5.5 * pair) / 2e3)


def test_ratios_pair_the_rounds():
    record = Record(date="2026-01-01", machine="a machine", command="python", precision="bf16")
    record.subjects = {name: Subject("1.0", "bfloat16") for name in ("outcrop", "vllm")}
    record.rounds = [Round(Limits(1e10, 1e10, 1e10, 1e10), others=0.1)]
    for number, (ours, theirs) in enumerate([(200, 100), (300, 100), (90, 90)], start=1):
        for name, rate in (("outcrop", ours), ("vllm", theirs)):
            figures = Figures(1.0, 1.0, 1.0, 1.0, 1.0, throughput=float(rate), seconds=1.0)
            record.measurements.append(Measurement(number, "eight", name, figures))
    workload = next(each for each in WORKLOADS if each.name == "eight")
    results = report.Results(record)
    assert results.ratios(workload, "vllm", "throughput") == [2.0, 3.0, 1.0]
    assert results.peers(workload) == ["outcrop", "vllm"]


def test_a_record_survives_its_file(tmp_path):
    record = Record(date="2026-01-01", machine="a machine", command="python", precision="int8")
    record.measurements.append(Measurement(1, "eight", "vllm", Figures(*map(float, range(7)))))
    record.save(tmp_path / "record.json")
    assert Record.load(tmp_path / "record.json") == record
