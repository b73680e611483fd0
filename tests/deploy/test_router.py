"""The chart's router: its own haproxy.cfg, run by HAProxy before two real servers. (Here their addresses are
where the chart has a name, whose answers change.)"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from demo import PATH
from serving import ANY_MODEL, PATIENCE, Served, eventually, serving

from outcrop.api.caller import SESSION

from .manifests import require
from .test_chart import router_config

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SERVED_BY = "x-served-by"
CONFIG = """notice_seconds = 5
[auth]
mode = "required"
[[auth.credentials]]
access_key_id = "{key}"
secret_env = "THE_SECRET"
[[models]]
path = "{path}"
backend = "fake"
fake_step_ms = 5
"""


@contextmanager
def server(folder: Path) -> Iterator[Served]:
    """One that knows one key."""
    folder.mkdir()
    config = folder / "outcrop.toml"
    config.write_text(CONFIG.format(key=KEY, path=PATH))
    with serving(folder, "--config", str(config), THE_SECRET=SECRET) as served:
        yield served


def here(config: str, port: int, servers: list[str]) -> str:
    """The chart's configuration, for servers of this machine, which answers say the number of."""
    config, binds = re.subn("bind :8080", f"bind 127.0.0.1:{port}", config)
    lines = "\n".join(f"  server {number} {each}" for number, each in enumerate(servers))
    lines += f"\n  http-response set-header {SERVED_BY} %[srv_name]"
    config, templates = re.subn("  server-template .*", lines, config)
    assert (binds, templates) == (1, 1)
    return config


@pytest.fixture
def haproxy() -> str:
    return require("haproxy", "Debian's package of that name")


@contextmanager
def router(haproxy: str, folder: Path, servers: list[Served]) -> Iterator[str]:
    """The URL of a running router."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "haproxy.cfg"
    config.write_text(
        here(router_config("spot-fleet.yaml"), port, [each.url.removeprefix("http://") for each in servers])
    )
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([haproxy, "-db", "-f", str(config)], stdout=log, stderr=subprocess.STDOUT)
    try:
        eventually(lambda: is_ready(port) or process.poll() is not None, "a router")
        assert process.poll() is None, (folder / "haproxy.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def routed(haproxy: str, folder: Path) -> Iterator[tuple[str, Served, Served]]:
    """Two servers, and the URL of a router before them."""
    with (
        server(folder / "a") as first,
        server(folder / "b") as second,
        router(haproxy, folder, [first, second]) as url,
    ):
        yield url, first, second


def is_ready(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"GET /router/ready HTTP/1.0\r\n\r\n")
        return b" 200 " in connection.recv(4096)
    return False


def client(
    url: str, headers: Mapping[str, str] = {}, secret: str = SECRET, service: str = "bedrock-runtime"
) -> Any:
    made = boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, read_timeout=PATIENCE),
    )

    def add(params: dict[str, Any], **event: Any) -> None:
        params["headers"].update(headers)

    made.meta.events.register("before-call", add)
    return made


def say(bedrock: Any, *texts: str, tokens: int = 5) -> tuple[str, str]:
    """A conversation's next answer, and which server gave it. texts: what was said so far, by user and model
    in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": [{"text": text}]} for index, text in enumerate(texts)]
    answer = bedrock.converse(modelId=ANY_MODEL, messages=messages, inferenceConfig={"maxTokens": tokens})
    text = "".join(each["text"] for each in answer["output"]["message"]["content"])
    return text.strip() or ".", answer["ResponseMetadata"]["HTTPHeaders"][SERVED_BY]


def test_haproxy_takes_the_configuration(haproxy: str, tmp_path: Path) -> None:
    """As the chart has it, but for the one word that HAProxy knows since 3.0."""
    version = subprocess.run([haproxy, "-v"], capture_output=True, text=True, check=True).stdout
    config = router_config("spot-fleet.yaml")
    assert config.endswith(" hash-key addr\n")
    if tuple(map(int, re.findall(r"version (\d+)\.", version))) < (3,):
        config = config.removesuffix(" hash-key addr\n") + "\n"
    path = tmp_path / "haproxy.cfg"
    path.write_text(config)
    done = subprocess.run([haproxy, "-c", "-f", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    path.write_text(config.replace("hash-balance-factor", "hash-balance"))
    assert subprocess.run([haproxy, "-c", "-f", str(path)], capture_output=True).returncode != 0


@pytest.mark.slow
def test_signed_calls_pass_and_conversations_stay(haproxy: str, tmp_path: Path) -> None:
    with routed(haproxy, tmp_path) as (url, _, _):
        bedrock = client(url)
        message = [{"role": "user", "content": [{"text": "Grüße, señor! 你好"}]}]
        arn = f"arn:aws:bedrock:us-east-1::foundation-model/{ANY_MODEL}"  # with a slash in the path
        answer = bedrock.converse(modelId=arn, messages=message, inferenceConfig={"maxTokens": 4})
        assert answer["usage"]["outputTokens"] == 4
        events = bedrock.converse_stream(modelId=arn, messages=message, inferenceConfig={"maxTokens": 4})[
            "stream"
        ]
        assert [next(iter(each)) for each in events][-2:] == ["messageStop", "metadata"]
        listed = client(url, service="bedrock").list_foundation_models(byProvider="Meta")  # with a query
        assert listed["modelSummaries"]
        with pytest.raises(ClientError, match="InvalidSignatureException"):
            client(url, secret="another").converse(modelId=arn, messages=message)

        by_session = []
        for number in range(8):
            session = client(url, {SESSION: f"session {number}"})
            by_session.append({say(session, text)[1] for text in ("One.", "Two.", "Three.")})
        assert {len(each) for each in by_session} == {1}
        assert set.union(*by_session) == {"0", "1"}

        by_beginning = []
        for number in range(8):
            said, pods = [f"Let us talk about the number {number}, " + "and what it is good for, " * 8], set()
            for _ in range(3):
                text, pod = say(bedrock, *said)
                said += [text, "Go on."]
                pods.add(pod)
            by_beginning.append(pods)
        assert {len(each) for each in by_beginning} == {1}
        assert set.union(*by_beginning) == {"0", "1"}


@pytest.mark.slow
def test_no_call_fails_while_a_server_goes(haproxy: str, tmp_path: Path) -> None:
    with routed(haproxy, tmp_path) as (url, first, second):
        stop, served = threading.Event(), Counter[str]()

        def load(number: int) -> None:
            bedrock, count = client(url), 0
            while not stop.is_set():
                _, pod = say(bedrock, f"Call {count} of {number}.", tokens=20)
                served[pod] += 1
                count += 1

        with ThreadPoolExecutor(4) as threads:
            work = [threads.submit(load, number) for number in range(4)]
            try:
                eventually(lambda: min(served["0"], served["1"]) > 5, "calls of both servers")
                first.process.send_signal(signal.SIGTERM)
                assert first.wait() == 0
            finally:
                stop.set()
            for each in work:
                each.result()
        second.process.send_signal(signal.SIGTERM)
        assert second.wait() == 0
        with pytest.raises(ClientError) as error:
            say(client(url), "Is anybody there?")
        assert error.value.response["Error"]["Code"] == "ServiceUnavailableException"
