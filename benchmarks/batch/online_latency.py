"""What a batch job costs the calls that come while it runs.

    python -m benchmarks.batch.online_latency [--rounds 5] [--clients 2] [--calls 20]

One server with the demo model, and clients that call it with pauses between their calls, in rounds without
and with a batch job of more records than it can get through. Time per output token at the 99th percentile of
all calls, with the job over without it, is to be at most 1.10; above that the exit status is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import httpx
from benchmarks.load.converse import Call, converse_stream
from benchmarks.load.server import DEMO, served

from outcrop.percentile import percentile

MODEL = "meta.llama3-8b-instruct-v1:0"
LIMIT = 1.10
RECORDS = 20_000
TOKENS = 64
PAUSE = 0.3
"""Seconds between two calls of a client, in which there is capacity left."""


async def load(url: str, clients: int, calls: int) -> list[Call]:
    async with httpx.AsyncClient(base_url=url, timeout=600) as http:

        async def client(number: int) -> list[Call]:
            made = []
            for turn in range(calls):
                prompt = f"Tell me fact {turn} about the number {number}."
                made.append(await converse_stream(http, MODEL, prompt, TOKENS))
                await asyncio.sleep(PAUSE)
            return made

        return [call for made in await asyncio.gather(*map(client, range(clients))) for call in made]


def tpots(calls: list[Call]) -> list[float]:
    """Milliseconds for each further token of a call."""
    return [
        1000 * (call.chunks[-1] - call.chunks[0]) / (call.output_tokens - 1)
        for call in calls
        if call.output_tokens > 1
    ]


@contextmanager
def batch_job(bedrock: Any, folder: Path) -> Iterator[list[int]]:
    """A job that runs within the block; afterwards the list has how many of its records were answered."""
    job = bedrock.create_model_invocation_job(
        jobName="benchmark",
        roleArn="arn:aws:iam::000000000000:role/batch",
        modelId=MODEL,
        inputDataConfig={"s3InputDataConfig": {"s3Uri": f"file://{folder}/in.jsonl"}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": f"file://{folder}/out"}},
    )["jobArn"]
    answered: list[int] = []

    def processed() -> int:
        return int(bedrock.get_model_invocation_job(jobIdentifier=job).get("processedRecordCount", 0))

    while not processed():
        time.sleep(0.1)
    before = processed()
    yield answered
    answered.append(processed() - before)
    bedrock.stop_model_invocation_job(jobIdentifier=job)
    while bedrock.get_model_invocation_job(jobIdentifier=job)["status"] != "Stopped":
        time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--calls", type=int, default=20, help="of each client in a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "in.jsonl").open("w") as file:
            for number in range(RECORDS):
                body = {"prompt": f"Write a story about the number {number}.", "max_gen_len": 100}
                file.write(json.dumps({"recordId": f"R{number:010}", "modelInput": body}) + "\n")
        config = folder / "outcrop.toml"
        config.write_text(f'[[models]]\npath = "{DEMO}"\n[storage]\nfolder = "{folder}"\n')
        with served("--config", str(config), "--state", str(folder / "state.db")) as (url, _, _):
            bedrock = boto3.client(
                "bedrock", endpoint_url=url, region_name="us-east-1",
                aws_access_key_id="x", aws_secret_access_key="x",
            )  # fmt: skip
            asyncio.run(load(url, options.clients, 2))
            alone: list[float] = []
            beside: list[float] = []
            for number in range(options.rounds):
                alone += tpots(asyncio.run(load(url, options.clients, options.calls)))
                with batch_job(bedrock, folder) as answered:
                    beside += tpots(asyncio.run(load(url, options.clients, options.calls)))
                print(
                    f"round {number + 1}: p99 TPOT so far {percentile(alone, 0.99):.2f} ms alone, "
                    f"{percentile(beside, 0.99):.2f} ms beside the job, which answered {answered[0]} records",
                    file=sys.stderr,
                )
    found = {
        "tpot_p50_alone_ms": percentile(alone, 0.5),
        "tpot_p50_beside_job_ms": percentile(beside, 0.5),
        "tpot_p99_alone_ms": percentile(alone, 0.99),
        "tpot_p99_beside_job_ms": percentile(beside, 0.99),
        "p99_ratio": percentile(beside, 0.99) / percentile(alone, 0.99),
        "calls": len(alone),
    }
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))
    return int(found["p99_ratio"] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
