"""Outcrop and its peers in turn: one client, one protocol, the same weights.

python -m benchmarks.peers [--peers outcrop vllm ...] [--workloads single eight ...] [--rounds 5]
                           [--precision bf16|int8] [--quick] [--output benchmarks/results/DATE-peers]

Each peer is installed into an environment of its own and started once; while one has its turn the others
are paused, so it has the whole machine but for the client. A round gives each peer each workload once, with
prompts that nobody has seen; the order changes from round to round. The first round is not counted.
Writes OUTPUT.json after every round, and OUTPUT.md and OUTPUT.svg at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psutil
from benchmarks.load.completions import CompletionError, run_load
from benchmarks.load.figures import figures
from benchmarks.peers import report, weights
from benchmarks.peers.limits import Limits
from benchmarks.peers.models import MODELS, ROOT
from benchmarks.peers.peer import Peer, PeerError
from benchmarks.peers.record import Measurement, Record, Round, Subject
from benchmarks.peers.registry import PEERS
from benchmarks.peers.workloads import SMOKE, WORKLOADS, Workload

_QUICK = ("single", "eight")
_WATCH_SECONDS = 0.5


def main() -> None:
    # Told to end, it must not leave servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    options = _options()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    record = Record(
        date=datetime.date.today().isoformat(),
        machine=_machine(),
        command=shlex.join(["python", "-m", "benchmarks.peers", *sys.argv[1:]]),
        precision=options.precision,
    )
    chosen = [workload for workload in (*WORKLOADS, SMOKE) if workload.name in options.workloads]
    for model in dict.fromkeys(workload.model for workload in chosen):
        weights.prepare(MODELS[model])
        peers = _started([PEERS[name] for name in options.peers], model, record)
        try:
            _run(peers, [each for each in chosen if each.model == model], options, record)
        finally:
            for peer in peers:
                peer.stop()
    report.write(record, options.output)
    print(f"written: {options.output}.md")
    for failure in record.failures:
        print(f"failed: {failure}", file=sys.stderr)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument("--workloads", nargs="+", choices=[*names, SMOKE.name], help="all but the last")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--precision", choices=("bf16", "int8"), default="bf16")
    parser.add_argument("--quick", action="store_true", help=f"one round of {' and '.join(_QUICK)}")
    parser.add_argument("--output", type=Path, help="without a suffix")
    options = parser.parse_args()
    options.workloads = options.workloads or (_QUICK if options.quick else names)
    options.rounds = options.rounds or (1 if options.quick else 5)
    suffix = "" if options.precision == "bf16" else f"-{options.precision}"
    default = ROOT / "benchmarks" / "results" / f"{datetime.date.today()}-peers{suffix}"
    options.output = options.output or default
    return options


def _started(kinds: Sequence[type[Peer]], model: str, record: Record) -> list[Peer]:
    """Those that can be run, ready and paused."""
    peers: list[Peer] = []
    for kind in kinds:
        peer = kind(MODELS[model], record.precision)
        if record.precision not in peer.precisions:
            continue
        try:
            peer.install()
            peer.prepare()
            peer.start()
        except (PeerError, OSError, subprocess.CalledProcessError) as error:
            record.failures.append(f"{peer.name}, {model}: {error}")
            continue
        known = record.subjects.get(peer.name) or Subject(peer.version(), peer.precisions[record.precision])
        record.subjects[peer.name] = msgspec.structs.replace(
            known,
            commands=known.commands | {model: peer.describe()},
            ready_after=known.ready_after | {model: peer.ready_after},
        )
        peer.pause()
        peers.append(peer)
    return peers


def _run(
    peers: list[Peer], workloads: Sequence[Workload], options: argparse.Namespace, record: Record
) -> None:
    """All rounds of one model. A peer that fails is out."""
    for number in range(options.rounds + 1):
        if number:
            record.rounds.append(_look_around())
        for workload in workloads:
            turn = number % max(1, len(peers))
            for peer in peers[turn:] + peers[:turn]:
                try:
                    measured = _turn(peer, workload, number)
                except (CompletionError, OSError, EOFError) as error:
                    record.failures.append(f"{peer.name}, {workload.name}, round {number}: {error!r}")
                    peer.stop()
                    peers.remove(peer)
                    continue
                print(
                    f"round {number} {workload.name} {peer.name}: TTFT {measured.figures.ttft_p50:.0f} ms, "
                    f"TPOT {measured.figures.tpot_p50:.1f} ms, {measured.figures.throughput:.1f} tok/s",
                    file=sys.stderr,
                )
                if number:
                    record.measurements.append(measured)
        if number:
            record.save(options.output.with_suffix(".json"))


def _turn(peer: Peer, workload: Workload, number: int) -> Measurement:
    before, requests = workload.requests(number)
    peer.resume()
    try:
        # What a paused process does first is slow; the shortest call takes that upon itself.
        waking = Workload("waking", workload.model, "", (16,), 4).requests(number)[1]
        asyncio.run(run_load(peer.url, peer.served_name, waking))
        if before:
            asyncio.run(run_load(peer.url, peer.served_name, before))
        calls = asyncio.run(run_load(peer.url, peer.served_name, requests))
    finally:
        peer.pause()
    return Measurement(number, workload.name, peer.name, figures(calls))


def _look_around() -> Round:
    psutil.cpu_percent()
    time.sleep(_WATCH_SECONDS)
    others = psutil.cpu_percent() / 100 * (os.cpu_count() or 1)
    command = [sys.executable, "-m", "benchmarks.peers.limits"]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    return Round(msgspec.json.decode(output, type=Limits), others)


def _machine() -> str:
    """The processor and its memory, in words."""
    text = Path("/proc/cpuinfo").read_text()
    found = re.search(r"model name\s*: (.*)", text)
    flags = set(text.split())
    extensions = [
        name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if name in flags
    ]
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{os.cpu_count()} cores of {found[1] if found else platform.processor()} ({', '.join(extensions)}), "
        f"{memory:.0f} GiB, Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    main()
