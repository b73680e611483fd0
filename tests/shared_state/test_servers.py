"""Two real servers on one PostgreSQL database are one to their clients."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from postgres_server import PostgresServer
from serving import PATIENCE, Served, eventually, serving
from sqlalchemy import func, select
from typer.testing import CliRunner

from outcrop.api.auth.keys import Key
from outcrop.api.auth.shared_keys import SharedKeyStore
from outcrop.cli.main import app
from outcrop.fake_checkpoint import write_fake_checkpoint
from outcrop.ledger.database import Database
from outcrop.ledger.usage import Usage

MASTER = "m" * 32
MODEL = "meta.llama3-8b-instruct-v1:0"
ARN = f"arn:aws:bedrock:us-east-1::foundation-model/{MODEL}"


UNKNOWN = "UnrecognizedClientException"


def code_of(call: Callable[[], object]) -> str:
    """Of the error that a call ends with; "" for none."""
    try:
        call()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


class Pair:
    """Two servers, and what they share: the database and a folder."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.database = Database(url)
        self.servers: list[Served] = []
        self._store = SharedKeyStore(self.database, folder / "keys.json", MASTER)
        self._operator, self._bearer = self._store.create(0)

    def key(self, **fields: Any) -> Key:
        """A new key, once both servers know it."""
        key, _ = self._store.create(0, **fields)
        for server in self.servers:
            eventually(lambda server=server: self.knows(server, key), "a known key")  # type: ignore[misc]
        return key

    def knows(self, server: Served, key: Key) -> bool:
        return code_of(lambda: self.client(server, "bedrock", key).list_inference_profiles()) != UNKNOWN

    def revoke(self, key: Key) -> None:
        self._store.revoke(key.id, time.time())

    def client(self, server: Served, service: str = "bedrock-runtime", key: Key | None = None) -> Any:
        key = key or self._operator
        return boto3.client(
            service,
            endpoint_url=server.url,
            region_name="us-east-1",
            aws_access_key_id=key.id,
            aws_secret_access_key=self._store.master().secret_access_key(key.id),
            config=Config(retries={"total_max_attempts": 1}, read_timeout=PATIENCE),
        )

    def answered(self, server: Served) -> int:
        """Records of batch jobs, by this server since it started."""
        headers = {"authorization": f"Bearer {self._bearer}"}
        text = httpx.get(f"{server.url}/metrics", headers=headers).text
        found = re.findall(r"^outcrop_batch_records_total{.*} (\S+)$", text, re.M)
        return int(sum(map(float, found)))


def configuration(folder: Path, url: str) -> Path:
    file = folder / "outcrop.toml"
    file.write_text(
        f"""
        state = "{url}"
        [auth]
        mode = "required"
        [[models]]
        path = "{write_fake_checkpoint(folder / "model")}"
        id = "{MODEL}"
        backend = "fake"
        fake_step_ms = 5
        [storage]
        folder = "{folder}"
        [jobs]
        rows = 4
        lease_seconds = 1
        """
    )
    return file


@pytest.fixture(scope="module")
def pair(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(postgres.new_database(), tmp_path_factory.mktemp("servers"))
    options = ("--config", str(configuration(pair.folder, pair.url)), "--state", pair.url)
    with ExitStack() as stack:
        for name in ("first", "second"):
            (pair.folder / name).mkdir()
            variables = {"OUTCROP_MASTER_SECRET": MASTER, "XDG_STATE_HOME": str(pair.folder / name)}
            server = serving(pair.folder / name, *options, wait=False, **variables)
            pair.servers.append(stack.enter_context(server))
        for each in pair.servers:
            each.wait_until_ready()
            each.engines()
        yield pair
    pair.database.close()


def ask(client: Any, model: str = MODEL, tokens: int = 4) -> tuple[int, int]:
    """The usage that is told."""
    answer = client.converse(
        modelId=model,
        messages=[{"role": "user", "content": [{"text": "Hi"}]}],
        inferenceConfig={"maxTokens": tokens},
    )
    return answer["usage"]["inputTokens"], answer["usage"]["outputTokens"]


def test_a_quota_of_n_is_n_in_total_and_the_ledger_is_what_was_told(pair: Pair) -> None:
    n = 40
    key = pair.key(rpm=n, tenant="crowd")
    told: list[tuple[int, int]] = []
    begun = time.monotonic()

    def insist(number: int) -> None:
        """Call until told that there were too many requests."""
        client = pair.client(pair.servers[number % 2], key=key)
        while not (code := code_of(lambda: told.append(ask(client)))):
            pass
        assert code == "ThrottlingException"

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(insist, range(16)))
    filled = (time.monotonic() - begun) * n / 60
    assert n <= len(told) <= n + filled
    with pair.database.transaction() as session:
        assert session.execute(
            select(func.count(), func.sum(Usage.input_tokens), func.sum(Usage.output_tokens)).where(
                Usage.tenant == "crowd"
            )
        ).one() == (len(told), sum(read for read, _ in told), sum(written for _, written in told))
    bill = CliRunner().invoke(app, ["cost", "usage", "--state", pair.url, "--tenant", "crowd", "--json"])
    assert bill.exit_code == 0, bill.output
    (row,) = json.loads(bill.stdout)["rows"]
    assert row["usage"]["requests"] == len(told)


def test_tokens_a_minute_are_so_in_total(pair: Pair) -> None:
    read, written = ask(pair.client(pair.servers[0]))
    key = pair.key(tpm=2 * (read + written) + read - 2, tenant="short")
    first, second = (pair.client(server, key=key) for server in pair.servers)
    ask(first)
    ask(second)
    # But for the answers there would be enough for the next.
    eventually(lambda: code_of(lambda: ask(first)) == "ThrottlingException", "a refusal")


def test_a_revoked_key_is_refused_by_both(pair: Pair) -> None:
    key = pair.key()
    pair.revoke(key)
    for server in pair.servers:
        eventually(lambda server=server: not pair.knows(server, key), "a refusal")  # type: ignore[misc]


def test_what_one_server_makes_the_other_knows(pair: Pair) -> None:
    first, second = pair.servers
    control, other = (pair.client(server, "bedrock") for server in pair.servers)
    made = control.create_inference_profile(
        inferenceProfileName="team a", modelSource={"copyFrom": ARN}, tags=[{"key": "k", "value": "v"}]
    )["inferenceProfileArn"]
    assert other.get_inference_profile(inferenceProfileIdentifier=made)["inferenceProfileName"] == "team a"
    assert other.list_tags_for_resource(resourceARN=made)["tags"] == [{"key": "k", "value": "v"}]
    ask(pair.client(first), made)

    def answers(server: Served) -> bool:
        code = code_of(lambda: ask(pair.client(server), made))
        assert code in ("", "ValidationException")
        return not code

    eventually(lambda: answers(second), "a profile's answer")
    other.delete_inference_profile(inferenceProfileIdentifier=made)
    assert not answers(second)
    eventually(lambda: not answers(first), "a profile's end")


def test_what_the_other_deletes_at_once_is_gone(pair: Pair) -> None:
    first, control, other = pair.servers[0], *(pair.client(server, "bedrock") for server in pair.servers)
    made = control.create_inference_profile(inferenceProfileName="brief", modelSource={"copyFrom": ARN})
    arn = made["inferenceProfileArn"]
    other.delete_inference_profile(inferenceProfileIdentifier=arn)
    eventually(lambda: code_of(lambda: ask(pair.client(first), arn)) == "ValidationException", "its end")


def records(pair: Pair, count: int) -> Path:
    file = pair.folder / f"{count}.jsonl"
    if file.exists():  # jobs may be reading it
        return file
    file.write_text(
        "".join(
            json.dumps(
                {"recordId": f"CALL{number:07}", "modelInput": {"prompt": f"{number}", "max_gen_len": 20}}
            )
            + "\n"
            for number in range(count)
        )
    )
    return file


def start(pair: Pair, server: Served, count: int) -> str:
    made = pair.client(server, "bedrock").create_model_invocation_job(
        jobName="job",
        roleArn="arn:aws:iam::000000000000:role/batch",
        modelId=MODEL,
        inputDataConfig={"s3InputDataConfig": {"s3Uri": f"file://{records(pair, count)}"}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": f"file://{pair.folder}/out"}},
    )
    arn: str = made["jobArn"]
    return arn


def completed(pair: Pair, server: Served, arn: str, count: int) -> None:
    """Wait for the job's end by asking a server, and see that each record was answered once."""
    control = pair.client(server, "bedrock")

    def status() -> str:
        return str(control.get_model_invocation_job(jobIdentifier=arn)["status"])

    eventually(lambda: status() in ("Completed", "Failed"), "the job's end")
    assert status() == "Completed"
    job_id = arn.rpartition("/")[2]
    file = pair.folder / "out" / job_id / f"{count}.jsonl.out"
    found = [json.loads(line)["recordId"] for line in file.read_text().splitlines()]
    assert found == [f"CALL{number:07}" for number in range(count)]
    with pair.database.transaction() as session:
        rows = session.scalar(select(func.count()).where(Usage.request_id.startswith(job_id)))
    assert rows == count


def test_a_batch_job_runs_once(pair: Pair) -> None:
    arns = [start(pair, server, 30) for server in pair.servers]
    for arn, server in zip(arns, reversed(pair.servers), strict=True):
        completed(pair, server, arn, 30)
    assert sum(map(pair.answered, pair.servers)) == 60


@pytest.mark.slow
def test_a_job_goes_on_when_its_server_is_killed(pair: Pair) -> None:
    """The last test of the two, since it leaves one."""
    before = [pair.answered(server) for server in pair.servers]
    arn = start(pair, pair.servers[0], 100)

    def workers() -> list[Served]:
        """Who has answered a good part of it."""
        return [
            server
            for server, count in zip(pair.servers, before, strict=True)
            if pair.answered(server) >= count + 20
        ]

    eventually(lambda: bool(workers()), "20 records")
    (worker,) = workers()
    (other,) = [server for server in pair.servers if server is not worker]
    done_before = pair.answered(other)
    worker.process.kill()
    worker.wait()
    completed(pair, other, arn, 100)
    assert 0 < pair.answered(other) - done_before <= 80
