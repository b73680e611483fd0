"""`outcrop simulate` as it is typed."""

from __future__ import annotations

import io
import json
import time

import pytest
from typer.testing import CliRunner

from outcrop.cli.main import app
from outcrop.cli.simulate.progress import progress_line

SMALL = ("--rate", "4", "--requests", "30", "--in", "200", "--out", "20")


def outcrop(*arguments: str):
    return CliRunner().invoke(app, ["simulate", *arguments])


def test_a_run():
    done = outcrop(*SMALL)
    assert done.exit_code == 0, done.output
    for part in (
        "Llama-3.1-8B on inf2.48xlarge, 3 x tp8, paced",
        "30 requests",
        "time per output token",
        "SLO",
    ):
        assert part in done.stdout
    assert "12.9813" in done.stdout  # dollars an hour, of the price files


def test_json_is_the_same_for_a_seed():
    first, again, other = (outcrop(*SMALL, "--json", "--seed", seed).stdout for seed in ("1", "1", "2"))
    assert first == again != other
    found = json.loads(first)
    assert (found["kind"], found["completed"], found["errors"]) == ("simulated", 30, 0)
    assert found["figures"]["dollars_per_hour"] == pytest.approx(12.98127)
    assert found["mean_output_tokens"] > 0


def test_a_trace_file_and_a_closed_loop(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("timestamp_ms,input_tokens,output_tokens\n0,100,5\n50,200,5\nx,1,1\n")
    done = outcrop("--trace", str(path))
    assert done.exit_code == 0, done.output
    assert "1 rows of the trace were left out: timestamp_ms is no time" in done.stdout
    done = outcrop("--users", "2", "--requests", "4", "--out", "5", "--price", "2", "--json")
    assert json.loads(done.stdout)["figures"]["dollars_per_hour"] == 2


def test_means_are_of_requests_that_were_answered(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("timestamp_ms,input_tokens,output_tokens\n0,100,5\n50,200,7\n90,9000,5\n")
    found = json.loads(outcrop("--trace", str(path), "--json").stdout)
    assert (found["completed"], found["errors"]) == (2, 1)
    assert (found["mean_input_tokens"], found["mean_output_tokens"]) == (150, 6)


def test_a_sweep(tmp_path):
    pytest.importorskip("matplotlib")
    plot = tmp_path / "frontier.svg"
    done = outcrop(
        *SMALL, "--sweep", "--instance", "inf2.8xlarge,inf2.48xlarge", "--most-instances", "8",
        "--option", "spot", "--plot", str(plot),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "The cheapest that holds it" in done.stdout
    assert plot.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rate", "0"), "the rate is 0.0 requests a second"),
        (("--rate", "nan"), "the rate is nan requests a second"),
        (("--users", "1", "--think", "inf"), "a think time of inf s"),
        (("--rate", "1", "--in", "5000"), "each is at most half of the context, 4096 tokens"),
        (("--seed", "1"), "say the load with one of --rate, --users, --trace"),
        (("--rate", "1", "--users", "2"), "--rate and --users given"),
        (("--trace", "none.csv"), "none.csv"),
        ((*SMALL, "--instance", "p5.48xlarge"), "not one with NeuronCore-v2"),
        ((*SMALL, "--instance", "inf2.xlarge,inf2.48xlarge"), "--sweep tries several"),
        ((*SMALL, "--policy", "fair"), "--policy fair: there are interleave, paced"),
        ((*SMALL, "--tp", "two"), "--tp two: whole numbers"),
        ((*SMALL, "--batch", "0"), "--batch 0: it has to be at least 1"),
        ((*SMALL, "--replicas", "9"), "has cores for 1 to 3 of 8 cores"),
        ((*SMALL, "--chunk", "64"), "the narrowest prefill step has 128 tokens"),
        ((*SMALL, "--dtype", "fp8"), "--dtype fp8: there are"),
        ((*SMALL, "--slo", "fast"), "'fast' is not understood"),
        ((*SMALL, "--model", "gpt-4"), "neither a checkpoint nor a Llama 3 text model"),
        ((*SMALL, "--option", "lease"), "--option lease: there are on-demand"),
        ((*SMALL, "--price", "-1"), "dollars of an hour, above 0"),
        ((*SMALL, "--instance", "trn1n.32xlarge", "--option", "reserved-3yr"), "no reserved-3yr price"),
        ((*SMALL, "--parameters", "none.json"), "none.json"),
        ((*SMALL, "--plot", "x.svg"), "there is no --sweep"),
        ((*SMALL, "--requests", "0"), "--requests 0"),
        ((*SMALL, "--sweep", "--most-instances", "0"), "--most-instances 0"),
        ((*SMALL, "--max-model-len", "999999"), "was made for 131,072 tokens"),
        ((*SMALL, "--model", "Llama-3.1-70B", "--instance", "inf2.xlarge"), "weights take"),
    ],
)
def test_options_that_mean_nothing(options, said):
    done = outcrop(*options)
    assert done.exit_code in (1, 2), done.output
    assert said in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.output
    assert done.stdout == ""


def test_calibration(tmp_path):
    written = tmp_path / "parameters.json"
    done = outcrop("calibration", "--no-served", "--write", str(written))
    assert done.exit_code == 0, done.output
    for part in (
        "median absolute error",
        "held out",
        "The worst of those held out",
        "Where the model is wrong",
    ):
        assert part in done.stdout
    assert outcrop(*SMALL, "--parameters", str(written)).exit_code == 0
    refused = outcrop("calibration", "--no-served", "--json", "--write", str(tmp_path))
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "Is a directory" in refused.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_alone(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        with progress_line(stream) as show:
            show("simulating", 0.25)
            show("simulating", 0.5)
    assert " 25%, about 3 s left" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")
    assert file.getvalue() == ""
