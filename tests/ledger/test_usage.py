"""The ledger holds exactly what clients were told, whatever was killed meanwhile."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import pytest
from botocore.eventstream import EventStreamBuffer
from demo import PATH
from serving import ANY_MODEL, PATIENCE, Served, serving
from sqlalchemy import select
from typer.testing import CliRunner

from outcrop.cli.main import app
from outcrop.ledger.database import Database
from outcrop.ledger.usage import Usage
from outcrop.ledger.usage_ledger import UsageLedger, UsageRow
from outcrop.ledger.usage_report import count_windows, reading, sum_usage

CLIENTS = 500
NOW = datetime(2026, 11, 28, tzinfo=UTC)


def row(number: int, *, at: datetime = NOW, tenant: str = "t", outcome: str = "stop") -> UsageRow:
    return UsageRow(f"r{number}", at, tenant, "m", 10, 4, 5, 100.0, 20.0, outcome)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "state.db")
    yield database
    database.close()


def written(database: Database) -> list[str]:
    with database.transaction() as session:
        return sorted(session.scalars(select(Usage.request_id)))


# -- the writer ------------------------------------------------------------------------------------


def test_a_recorded_row_is_there_and_many_share_a_commit(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = []
    run = database.run

    async def counted(work: Callable[..., object], **options: bool) -> object:
        commits.append(work)
        return await run(work, **options)

    monkeypatch.setattr(database, "run", counted)

    async def scenario() -> None:
        ledger = UsageLedger(database)
        await asyncio.gather(*(ledger.record(row(number)) for number in range(300)))
        # They were read by another connection, so they are committed and not just written.
        assert len(written(database)) == 300
        assert ledger.backlog == 0
        await ledger.close()

    asyncio.run(scenario())
    assert len(commits) <= 2


def test_an_id_that_is_there_already_is_not_counted_twice_and_harms_no_other(database: Database) -> None:
    async def scenario() -> None:
        ledger = UsageLedger(database)
        await ledger.record(row(1))
        await asyncio.wait_for(asyncio.gather(*(ledger.record(row(number)) for number in (1, 2))), PATIENCE)
        assert ledger.backlog == 0
        await ledger.close()

    asyncio.run(scenario())
    assert written(database) == ["r1", "r2"]


def test_what_nobody_waits_for_is_written_at_the_latest_in_the_end(database: Database) -> None:
    async def scenario() -> None:
        ledger = UsageLedger(database)
        for number in range(5):
            ledger.note(row(number, outcome="abort"))
        await ledger.close()

    asyncio.run(scenario())
    assert len(written(database)) == 5


def test_a_given_up_answer_takes_no_row_back(database: Database) -> None:
    async def scenario() -> None:
        ledger = UsageLedger(database)
        task = asyncio.create_task(ledger.record(row(1)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await ledger.record(row(2))
        await ledger.close()

    asyncio.run(scenario())
    assert written(database) == ["r1", "r2"]


def test_a_database_that_cannot_be_written_delays_nobody_and_loses_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("outcrop.ledger.usage_ledger._RETRY_SECONDS", 0.05)
    database.open()

    def rename(old: str, new: str) -> None:
        with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
            connection.execute(f"ALTER TABLE {old} RENAME TO {new}")

    async def scenario() -> None:
        ledger = UsageLedger(database)
        rename("usage", "elsewhere")
        await asyncio.wait_for(
            asyncio.gather(*(ledger.record(row(number)) for number in range(10))), PATIENCE
        )
        await asyncio.wait_for(ledger.record(row(10)), PATIENCE)
        assert ledger.backlog == 11
        rename("elsewhere", "usage")
        await ledger.close()
        assert ledger.backlog == 0

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    assert "usage of 10 generations cannot be written yet: no such table: usage" in caplog.text
    assert len(written(database)) == 11


def test_rows_that_are_dropped_are_told_in_the_end(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("outcrop.ledger.usage_ledger._MOST_WAITING", 3)
    database.open()
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        connection.execute("DROP TABLE usage")

    async def scenario() -> None:
        ledger = UsageLedger(database)
        for number in range(5):
            ledger.note(row(number))
        await ledger.close()

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    assert "usage of 5 generations was not written" in caplog.text


def test_sums_by_tenant_and_model_of_a_period(database: Database) -> None:
    rows = [row(1), row(2, tenant="u", outcome="abort"), row(3), row(4, at=NOW - timedelta(days=1))]

    async def scenario() -> None:
        ledger = UsageLedger(database)
        await asyncio.gather(*map(ledger.record, rows))
        await ledger.close()

    asyncio.run(scenario())
    with database.transaction() as session:
        found = sum_usage(session, NOW, NOW + timedelta(seconds=1))
        assert [(each.tenant, each.requests, each.unfinished, each.input_tokens, each.output_tokens)
                for each in found] == [("t", 2, 0, 20, 10), ("u", 1, 1, 10, 5)]  # fmt: skip
        assert [each.cached_tokens for each in sum_usage(session, NOW, datetime.max.replace(tzinfo=UTC),
                                                         tenant="u")] == [4]  # fmt: skip


def test_windows_that_an_imported_model_is_billed_for(database: Database) -> None:
    minutes = {1: 0.0, 2: 4.9, 3: 5.0, 4: 9.0, 5: 30.0, 6: 33.0}  # in windows from 0, 5 and 30
    rows = [row(number, at=NOW + timedelta(minutes=at)) for number, at in minutes.items()]
    failed = row(7, at=NOW + timedelta(minutes=50), outcome="error")

    async def scenario() -> None:
        ledger = UsageLedger(database)
        await asyncio.gather(*(ledger.record(each) for each in (*rows, failed)))
        await ledger.close()

    asyncio.run(scenario())
    with database.transaction() as session:
        hour = (NOW, NOW + timedelta(hours=1))
        assert count_windows(session, *hour, "m") == 3
        assert count_windows(session, *hour, "m", tenant="u") == count_windows(session, *hour, "n") == 0
        assert count_windows(session, NOW + timedelta(minutes=4), NOW + timedelta(minutes=30), "m") == 1


def test_a_model_of_ones_own_is_billed_as_an_imported_one(database: Database, tmp_path: Path) -> None:
    own = "arn:aws:bedrock:us-east-1:123456789012:imported-model/abcdef123456"
    known = "meta.llama3-1-8b-instruct-v1:0"

    async def scenario() -> None:
        ledger = UsageLedger(database)
        for number, model in enumerate((own, own, known)):
            await ledger.record(
                msgspec.structs.replace(row(number, at=NOW + timedelta(hours=number)), model=model)
            )
        await ledger.close()

    asyncio.run(scenario())
    command = ["cost", "usage", "--since", "2026-11-28", "--until", "2026-11-29", "--instance", "inf2.xlarge"]
    command += ["--state", str(tmp_path / "state.db")]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.output
    (imported,) = json.loads(result.stdout)["imported"]
    assert imported == {
        "model": own, "windows": 2, "usd_per_unit": pytest.approx(2 * 5 * 0.05718), "unit_minute": 0.05718,
        "unit_month": 1.95, "region": "us-east-1", "price_date": "2026-07-21",
    }  # fmt: skip
    table = " ".join(CliRunner().invoke(app, command).stdout.split())
    assert f"{own}: Bedrock has no price of its tokens." in table
    assert "called in 2 windows of five minutes, $0.57 for each custom model unit of one copy" in table
    assert f"{known}: Bedrock" not in table


def test_who_reads_holds_no_writer_up(database: Database, tmp_path: Path) -> None:
    async def record(number: int) -> None:
        ledger = UsageLedger(database)
        await asyncio.wait_for(ledger.record(row(number)), PATIENCE)
        await ledger.close()

    period = (NOW, NOW + timedelta(seconds=1))
    asyncio.run(record(1))
    with reading(str(tmp_path / "state.db")) as session:
        assert [each.requests for each in sum_usage(session, *period)] == [1]
        asyncio.run(record(2))
        assert written(database) == ["r1", "r2"]


def test_a_file_that_is_no_ledger_is_told(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_bytes(b"something else, which is longer than a header" * 99)
    result = CliRunner().invoke(app, ["cost", "usage", "--state", str(tmp_path / "other.db")])
    assert result.exit_code == 2
    assert "usage cannot be read: file is not a database" in result.stderr


def test_a_bill_without_an_instance_says_which_setting_names_one(database: Database, tmp_path: Path) -> None:
    database.open()
    asyncio.run(UsageLedger(database).record(row(1)))
    result = CliRunner().invoke(
        app, ["cost", "usage", "--since", "2026-01-01", "--state", str(tmp_path / "state.db")]
    )
    assert result.exit_code == 0
    assert "[cost] in outcrop.toml" in " ".join(result.stdout.split())


# -- a whole server --------------------------------------------------------------------------------


class Told(NamedTuple):
    """The usage that a client was told. request_id: of its answer."""

    request_id: str
    input: int
    output: int


@asynccontextmanager
async def clients(server: Served) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE, limits=limits) as client:
        yield client


async def ask(client: httpx.AsyncClient, number: int) -> Told:
    """One call, by one of three protocols. Raises httpx.HTTPError if the answer does not come to its end."""
    tokens = 4 + number % 12
    message = {"role": "user", "content": [{"text": f"Question {number}"}]}
    body = {"messages": [message], "inferenceConfig": {"maxTokens": tokens}}
    if number % 3 == 0:
        answer = await client.post(f"/model/{ANY_MODEL}/converse", json=body)
        assert answer.status_code == 200, answer.text
        usage = answer.json()["usage"]
        return Told(answer.headers["x-amzn-requestid"], usage["inputTokens"], usage["outputTokens"])
    if number % 3 == 1:
        buffer = EventStreamBuffer()
        async with client.stream("POST", f"/model/{ANY_MODEL}/converse-stream", json=body) as answer:
            assert answer.status_code == 200
            async for data in answer.aiter_raw():
                buffer.add_data(data)
        (usage,) = [
            json.loads(event.payload)["usage"]
            for event in buffer
            if event.headers.get(":event-type") == "metadata"
        ]
        return Told(answer.headers["x-amzn-requestid"], usage["inputTokens"], usage["outputTokens"])
    request = {
        "model": ANY_MODEL, "prompt": [f"{number}", "And then?"], "max_tokens": tokens, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    async with client.stream("POST", "/openai/v1/completions", json=request) as answer:
        assert answer.status_code == 200
        events = [line[6:] async for line in answer.aiter_lines() if line.startswith("data: {")]
    usage = json.loads(events[-1])["usage"]
    return Told(answer.headers["x-amzn-requestid"], usage["prompt_tokens"], usage["completion_tokens"])


def ledger_of(folder: Path) -> dict[str, Told]:
    """Rows by the request that they belong to; the primary key sees to it that none is there twice."""
    with closing(sqlite3.connect(folder / "state.db")) as connection:
        rows = connection.execute("SELECT request_id, input_tokens, output_tokens FROM usage").fetchall()
    found: dict[str, Told] = {}
    for request_id, input_tokens, output_tokens in rows:
        whole = request_id[:36]  # what follows tells the prompts of a request apart
        before = found.get(whole, Told(whole, 0, 0))
        found[whole] = Told(whole, before.input + input_tokens, before.output + output_tokens)
    return found


def options(folder: Path) -> tuple[str, str]:
    config = folder / "outcrop.toml"
    config.write_text(
        'max_inflight = 2000\n[cost]\ninstance = "inf2.xlarge"\n'
        f'[[models]]\npath = "{PATH}"\nbackend = "fake"\n'
        "max_model_len = 2048\nmax_rows = 64\nfake_step_ms = 20\n"
    )
    return "--config", str(config)


def test_the_ledger_is_what_500_clients_were_told_though_the_engine_was_killed(tmp_path: Path) -> None:
    async def scenario(server: Served) -> list[Told]:
        async with clients(server) as client:
            calls = [asyncio.create_task(ask(client, number)) for number in range(CLIENTS)]
            while sum(call.done() for call in calls) < 20:
                await asyncio.sleep(0.02)
            assert not all(call.done() for call in calls)
            server.signal_engine(signal.SIGKILL)
            return await asyncio.gather(*calls)

    with serving(tmp_path, *options(tmp_path)) as server:
        told = asyncio.run(scenario(server))
        assert server.restarts == 1
        assert ledger_of(tmp_path) == {each.request_id: each for each in told}
        assert server.metric("outcrop_usage_rows_waiting") == 0
        assert server.metric("outcrop_cost_usd_total") > 0
        assert server.metric("outcrop_bedrock_equivalent_usd_total") > 0
        result = CliRunner().invoke(
            app,
            ["cost", "usage", "--since", "1h", "--state", str(tmp_path / "state.db"), "--json",
             "--config", str(tmp_path / "outcrop.toml")],
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    (billed,) = json.loads(result.stdout)["rows"]
    assert billed["usage"]["input_tokens"] == sum(each.input for each in told)
    assert billed["usage"]["output_tokens"] == sum(each.output for each in told)
    assert billed["usage"]["requests"] == CLIENTS + len(range(2, CLIENTS, 3))  # every third asked for two
    assert billed["usage"]["unfinished"] == 0
    assert billed["usd"] == pytest.approx(0.7582)
    haiku = billed["bedrock"]["anthropic.claude-3-haiku-20240307-v1:0"]
    assert haiku == pytest.approx(sum(0.25 * each.input + 1.25 * each.output for each in told) / 1e6)


@pytest.mark.slow
def test_a_killed_server_loses_no_usage_that_a_client_was_told(tmp_path: Path) -> None:
    async def storm(server: Served, count: int, *, kill: bool) -> list[Told | BaseException]:
        async with clients(server) as client:
            calls = [asyncio.create_task(ask(client, number)) for number in range(count)]
            while kill and sum(call.done() for call in calls) < 20:
                await asyncio.sleep(0.01)
            if kill:
                server.process.kill()
            return await asyncio.gather(*calls, return_exceptions=True)

    with serving(tmp_path, *options(tmp_path)) as server:
        first = asyncio.run(storm(server, CLIENTS, kill=True))
        server.wait()
    told = {each.request_id: each for each in first if isinstance(each, Told)}
    broken = [each for each in first if not isinstance(each, Told)]
    assert len(told) >= 20
    assert broken
    kept = ledger_of(tmp_path)
    assert {request_id: kept.get(request_id) for request_id in told} == told
    # What else is there was done, and the kill came between its commit and its client.
    assert len(kept) - len(told) <= len(broken)

    with serving(tmp_path, *options(tmp_path)) as server:
        second = asyncio.run(storm(server, 50, kill=False))
        again = {each.request_id: each for each in second if isinstance(each, Told)}
        assert len(again) == 50
        assert ledger_of(tmp_path) == kept | again
