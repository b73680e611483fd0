"""What one generated token costs the API process: from the engine's frame to the client's socket.

python benchmarks/api/token_path.py [--streams 1 16 64 256] [--seconds 4] [--rounds 3] [--profile DIRECTORY]

A real `outcrop serve` with the fake backend, which computes no model but steps at a fixed pace, in its own
process; a client in another process reads the streams and looks at nothing. While all streams are open, the
CPU time that the API process uses (user and system, all threads: so the kernel's part of sending over
loopback is in it) is divided by the tokens that the engine made. Requests begin and end outside of the time
measured.
"""

from __future__ import annotations

import argparse
import json
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from load.server import DEMO, served

MODEL = "meta.llama3-1-8b-instruct-v1:0"
PROTOCOLS = ("ConverseStream", "completions")
MAX_TOKENS = 8000
LEAST_STEP_MS, STEP_MS_PER_STREAM = 5.0, 0.15
"""A step takes long enough that the API process is not saturated at twice the cost that is aimed for: then it
wakes once a step for all streams, as it does beside a real model."""


@dataclass(frozen=True)
class Sample:
    """user, system: microseconds of CPU a token. load: share of one core. rate: tokens a second."""

    user: float
    system: float
    load: float
    rate: float

    @property
    def total(self) -> float:
        return self.user + self.system


def request(protocol: str, number: int) -> tuple[str, bytes]:
    """Path and body of one stream."""
    prompt = f"Tell me a long story about the number {number}."
    if protocol == "completions":
        path = "/openai/v1/completions"
        body = {
            "model": MODEL,
            "prompt": prompt,
            "max_tokens": MAX_TOKENS,
            "stream": True,
            "ignore_eos": True,
        }
    else:
        path = f"/model/{MODEL}/converse-stream"
        body = {
            "messages": [{"role": "user", "content": [{"text": prompt}]}],
            "inferenceConfig": {"maxTokens": MAX_TOKENS},
        }
    return path, json.dumps(body).encode()


def read_streams(url: str, protocol: str, count: int) -> None:
    """The client: opens the streams, says so when each has begun, and reads until it is ended."""
    address = urlsplit(url)
    selector = selectors.DefaultSelector()
    for number in range(count):
        path, body = request(protocol, number)
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        connection = socket.create_connection((address.hostname or "", address.port or 0))
        connection.sendall(head.encode() + body)
        selector.register(connection, selectors.EVENT_READ)
    begun: set[int] = set()
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            if not key.fileobj.recv(1 << 16):
                selector.unregister(key.fileobj)
            elif key.fd not in begun:
                begun.add(key.fd)
                if len(begun) == count:
                    print("begun", flush=True)


@contextmanager
def streaming(url: str, protocol: str, count: int) -> Iterator[None]:
    """While `count` streams are open."""
    command = [sys.executable, __file__, "--read", url, protocol, str(count)]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    try:
        if client.stdout.readline() != "begun\n":
            raise RuntimeError("the client could not open its streams")
        time.sleep(0.5)
        yield
    finally:
        client.kill()
        client.wait()


def tokens(url: str) -> float:
    """Generated so far."""
    with urlopen(f"{url}/metrics") as answer:
        (found,) = re.findall(r"^vllm:generation_tokens_total\S* (\S+)$", answer.read().decode(), re.M)
    return float(found)


def measure(url: str, process: psutil.Process, seconds: float) -> Sample:
    made, before, began = tokens(url), process.cpu_times(), time.perf_counter()
    time.sleep(seconds)
    after, elapsed = process.cpu_times(), time.perf_counter() - began
    made = tokens(url) - made
    user, system = after.user - before.user, after.system - before.system
    return Sample(user / made * 1e6, system / made * 1e6, (user + system) / elapsed, made / elapsed)


def profile(process: psutil.Process, seconds: float, name: str, directory: Path) -> None:
    """A flame graph of the API process."""
    command = [Path(sys.executable).with_name("py-spy"), "record", "--native", "--rate", "500"]
    command += ["--pid", str(process.pid), "--duration", str(round(seconds))]
    command += ["--output", str(directory / f"api-{name}.svg")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", type=Path, help="write flame graphs here, with py-spy")
    parser.add_argument("--read", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        url, protocol, count = options.read
        read_streams(url, protocol, int(count))
    print("| protocol | streams | step ms | tok/s | of a core | µs a token | min | max | in the kernel |")
    print("|---|---|---|---|---|---|---|---|---|")
    for count in options.streams:
        step_ms = max(LEAST_STEP_MS, STEP_MS_PER_STREAM * count)
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
            config.write(f'[[models]]\npath = "{DEMO}"\nbackend = "fake"\nfake_step_ms = {step_ms}\n')
            config.write(f"max_rows = {max(32, count)}\n")
            config.flush()
            with served("--config", config.name) as (url, process, _):
                for protocol in PROTOCOLS:
                    samples = []
                    for _ in range(options.rounds):
                        with streaming(url, protocol, count):
                            samples.append(measure(url, process, options.seconds))
                    if options.profile:
                        with streaming(url, protocol, count):
                            profile(process, options.seconds, f"{protocol}-{count}", options.profile)
                    samples.sort(key=lambda each: each.total)
                    median = samples[len(samples) // 2]
                    print(
                        f"| {protocol} | {count} | {step_ms:g} | {median.rate:.0f} | {median.load:.0%} "
                        f"| {median.total:.1f} | {samples[0].total:.1f} | {samples[-1].total:.1f} "
                        f"| {median.system:.1f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
