"""Loads: drawn ones, and files with bad rows."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from outcrop.simulate.trace import NS, Lengths, closed_loop, poisson
from outcrop.simulate.trace_file import TraceFileError, read_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
not a time,1,1
2023-11-16 18:15:51.2224670,many,55
2023-11-16 18:15:51,0,16
2023-11-16 18:15:47.0000000,91,16
"""
BURST = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,Conversation log
118,GPT-4,417,0,417,API log
"""


def test_azure(tmp_path):
    path = tmp_path / "conv.csv"
    path.write_text(AZURE)
    trace = read_trace(path)
    # In order of time, from 0, to the tenth of a microsecond.
    assert trace.arrival.tolist() == [0, 319_410_000, 4_314_579_000]
    assert trace.prompt.tolist() == [374, 91, 396]
    assert trace.output.tolist() == [44, 16, 109]
    assert dict(trace.skipped) == {
        "TIMESTAMP is no time": 1,
        "ContextTokens or GeneratedTokens is no whole number": 1,
        "no tokens in or out": 1,
    }


def test_azure_of_2024_has_offsets(tmp_path):
    path = tmp_path / "week.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2024-05-10 00:00:00.009930+00:00,1,2\n2024-05-10 00:00:01+00:00,3,4\n"
    )
    assert read_trace(path).arrival.tolist() == [0, 990_070_000]


def test_burst_gpt_compressed(tmp_path):
    path = tmp_path / "burst.csv.gz"
    path.write_bytes(gzip.compress(BURST.encode()))
    trace = read_trace(path, speed=2)
    assert trace.arrival.tolist() == [0, 20 * NS]
    assert trace.output.tolist() == [18, 230]
    assert dict(trace.skipped) == {"no tokens in or out": 1}


def test_own_columns_with_a_byte_order_mark_and_a_limit(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("\ufefftimestamp_ms,input_tokens,output_tokens,tenant\n10.5,1,2,a\n11,3,4,b\nx", "utf-8")
    assert len(read_trace(path, limit=1)) == 1
    assert read_trace(path).arrival.tolist() == [0, 500_000]


def test_json_lines(tmp_path):
    row = '{"timestamp_ms": %s, "input_tokens": 3, "output_tokens": %d}\n'
    path = tmp_path / "own.jsonl.gz"
    path.write_bytes(gzip.compress((row % (12, 5) + "\n" + row % (10.5, 4) + row % (11, 0)).encode()))
    trace = read_trace(path)
    assert (trace.arrival.tolist(), trace.output.tolist()) == ([0, 1_500_000], [4, 5])
    assert dict(trace.skipped) == {"no tokens in or out": 1}
    for bad in ("{}", "[]", "x", row % ('"noon"', 1), row % ("Infinity", 1)):
        (tmp_path / "bad.jsonl").write_text(row % (1, 1) + bad)
        with pytest.raises(TraceFileError, match="line 2: it has to be an object with timestamp_ms,"):
            read_trace(tmp_path / "bad.jsonl")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "its columns are a,b; known are those with TIMESTAMP,ContextTokens"),
        ("", "its columns are missing"),
        ("timestamp_ms,input_tokens,output_tokens\n", r"no request can be read from it \(it has no rows\)"),
        ("timestamp_ms,input_tokens,output_tokens\nx,1,1\n", "1 rows: timestamp_ms is no time"),
        ("timestamp_ms,input_tokens,output_tokens\nnan,1,1\n", "1 rows: timestamp_ms is no time"),
        ("timestamp_ms,input_tokens,output_tokens\n1\n", "is no whole number"),
    ],
)
def test_files_that_say_nothing(tmp_path, text, said):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(TraceFileError, match=said):
        read_trace(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(TraceFileError, match="No such file"):
        read_trace(tmp_path / "none.csv")
    (tmp_path / "bad.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(TraceFileError, match="gzip"):
        read_trace(tmp_path / "bad.csv.gz")
    (tmp_path / "latin.csv").write_bytes(b"timestamp_ms,input_tokens,output_tokens\n\xff")
    with pytest.raises(TraceFileError, match="decode"):
        read_trace(tmp_path / "latin.csv")


def test_rates_and_bursts():
    plain = poisson(5, 20_000, Lengths(100, 50), 1)
    bursty = poisson(5, 20_000, Lengths(100, 50), 1, burstiness=0.25)
    for trace in (plain, bursty):
        assert trace.rate == pytest.approx(5, rel=0.05)
        assert (np.diff(trace.arrival) >= 0).all()
        assert (trace.prompt == 100).all()
    # The gaps' coefficient of variation: 1, and 1 / sqrt(0.25).
    spreads = [np.diff(trace.arrival).std() / np.diff(trace.arrival).mean() for trace in (plain, bursty)]
    assert spreads == pytest.approx([1, 2], rel=0.05)


def test_lengths_are_spread_about_their_median():
    trace = poisson(1, 20_000, Lengths(600, 180, 1.0, 0.5, longest=4000), 3)
    assert np.median(trace.prompt) == pytest.approx(600, rel=0.05)
    assert np.median(trace.output) == pytest.approx(180, rel=0.05)
    assert trace.prompt.max() == 4000
    assert trace.output.min() >= 1


def test_a_seed_makes_one_trace():
    draws = [poisson(5, 100, Lengths(100, 50, 1, 1), seed) for seed in (1, 1, 2)]
    assert draws[0].arrival.tolist() == draws[1].arrival.tolist() != draws[2].arrival.tolist()
    assert draws[0].prompt.tolist() == draws[1].prompt.tolist() != draws[2].prompt.tolist()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: poisson(0, 1, Lengths(1, 1), 1), "rate"),
        (lambda: poisson(1, 0, Lengths(1, 1), 1), "one at least"),
        (lambda: poisson(1, 1, Lengths(1, 1), 1, burstiness=0), "burstiness"),
        (lambda: closed_loop(0, 1, Lengths(1, 1), 1), "users"),
        (lambda: closed_loop(1, 1, Lengths(1, 1), 1, think=-1), "think"),
        (lambda: Lengths(0, 1), "prompt"),
        (lambda: Lengths(1, 1, output_spread=9), "output_spread"),
    ],
)
def test_loads_that_mean_nothing(make, said):
    with pytest.raises(ValueError, match=said):
        make()
