"""The application on a Ray cluster of this machine (`make ray`): what clients get through Ray's proxy, and
what becomes of their calls when engines are killed or replaced. Skipped where Ray is not installed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from benchmarks.load.ray_cluster import MODEL, SERVE, RayCluster, ray_cluster
from botocore.config import Config
from botocore.exceptions import ClientError
from serving import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not SERVE.exists(), reason="Ray is not installed: `make ray`"),
]

BLOCK = 32
SETTINGS = {"fake_step_ms": 50, "max_rows": 8, "max_model_len": 2048, "block_size": BLOCK}
KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Two engines, which anybody may use until the last test."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("THE_SECRET", SECRET)
        folder = tmp_path_factory.mktemp("ray")
        with ray_cluster(folder, 2, model=SETTINGS, server={"auth": {"mode": "off"}}) as cluster:
            yield cluster


def client(cluster: RayCluster, secret: str = SECRET) -> Any:
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=cluster.url,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, read_timeout=240, max_pool_connections=50),
    )


def stream(bedrock: Any, number: int, tokens: int) -> Iterator[dict[str, Any]]:
    answer = bedrock.converse_stream(
        modelId=MODEL,
        messages=[{"role": "user", "content": [{"text": f"Count to {number}."}]}],
        inferenceConfig={"maxTokens": tokens, "temperature": 0},
    )
    with closing(answer["stream"]) as events:
        yield from events


def complete(bedrock: Any, number: int, tokens: int) -> tuple[str, int]:
    """The text, and how many tokens the usage says it has."""
    text, used = "", 0
    for event in stream(bedrock, number, tokens):
        text += event.get("contentBlockDelta", {}).get("delta", {}).get("text", "")
        used = event.get("metadata", {}).get("usage", {}).get("outputTokens", used)
    return text, used


def test_chunks_arrive_one_by_one_and_a_client_that_leaves_frees_its_place(cluster: RayCluster) -> None:
    before = generated(cluster)
    events = stream(client(cluster), 1, 1500)  # 75 seconds of steps
    for _ in range(5):
        assert next(events)
    events.close()
    eventually(lambda: running(cluster) == 0, "an end of the abandoned answer")
    assert generated(cluster) - before < 1500


def test_killed_engines_cost_no_call_and_no_token(cluster: RayCluster) -> None:
    bedrock = client(cluster)
    with ThreadPoolExecutor(8) as threads:
        quiet = list(threads.map(lambda number: complete(bedrock, number, 80), range(8)))
        running_calls: list[Future[tuple[str, int]]] = [
            threads.submit(complete, bedrock, number, 80) for number in range(8)
        ]
        eventually(lambda: running(cluster) == 8, "eight running requests")
        cluster.replicas()[0].kill()
        assert [call.result() for call in running_calls] == quiet
    assert {tokens for _, tokens in quiet} == {80}
    cluster.wait_until_ready(2)


def test_a_conversation_stays_with_the_engine_that_knows_it(cluster: RayCluster) -> None:
    """Four conversations over two engines: all but what is new in a turn is found again."""
    before, known, asked = hits(cluster), 0, 0
    contexts = [[1000 + 7 * number + each for each in range(40)] for number in range(4)]
    for turn in range(5):
        for number, context in enumerate(contexts):
            known += len(context) // BLOCK * BLOCK if turn else 0
            context += [2000 + 100 * turn + number + each for each in range(64)]
            asked += len(context)
            body = {"model": MODEL, "prompt": context, "max_tokens": 8, "return_token_ids": True}
            answer = httpx.post(f"{cluster.url}/openai/v1/completions", json=body, timeout=240)
            context += answer.json()["choices"][0]["token_ids"]
    eventually(lambda: hits(cluster) - before >= 0.9 * known, f"hits of {known} tokens of {asked}")


def test_engines_and_api_are_replaced_under_load_without_a_failed_call(cluster: RayCluster) -> None:
    """Changed settings, deployed in place: whoever is replaced finishes what it has. From then on callers
    need a key, and what they have signed (host, path, body) passes Ray's proxy as it was sent."""
    bedrock, done = client(cluster), threading.Event()
    old = {each.pid for name in (MODEL, "api") for each in cluster.replicas(name)}
    keys = {"auth": {"mode": "required", "credentials": [{"access_key_id": KEY, "secret_env": "THE_SECRET"}]}}

    def load(number: int) -> list[int]:
        counts = []
        while not done.is_set():
            counts.append(complete(bedrock, number, 20)[1])
        return counts

    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(load, number) for number in range(4)]
        try:
            cluster.update(replicas=2, model=SETTINGS | {"max_rows": 9}, server=keys)
            cluster.wait_until_ready(2)
        finally:
            done.set()
        counts = [count for call in calls for count in call.result()]
    assert len(counts) > 8
    assert set(counts) == {20}
    assert not old & {each.pid for name in (MODEL, "api") for each in cluster.replicas(name)}
    message = [{"role": "user", "content": [{"text": "Hello."}]}]
    arn = f"arn:aws:bedrock:us-east-1::foundation-model/{MODEL}"  # with a slash in the path
    answer = bedrock.converse(modelId=arn, messages=message, inferenceConfig={"maxTokens": 4})
    assert answer["usage"]["outputTokens"] == 4
    with pytest.raises(ClientError, match="InvalidSignatureException"):
        client(cluster, secret="another").converse(modelId=arn, messages=message)
    assert httpx.post(f"{cluster.url}/model/{MODEL}/converse", json={}).status_code == 403


def test_engines_come_with_load_and_go_without(tmp_path: Path) -> None:
    """A replica is to have two calls at once: six make Ray start a second one, which takes its part, and one,
    which goes on meanwhile, makes Ray end it."""
    autoscaling = {
        "min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 2, "metrics_interval_s": 0.5,
        "look_back_period_s": 2, "upscale_delay_s": 1, "downscale_delay_s": 3,
        "policy": {"policy_function": "outcrop.ray_serve.autoscaling:DemandPolicy"},
    }  # fmt: skip
    with ray_cluster(
        tmp_path, 1, model=SETTINGS | {"max_rows": 4}, server={"auth": {"mode": "off"}},
        deployment={"autoscaling_config": autoscaling},
    ) as cluster, ThreadPoolExecutor(6) as threads:  # fmt: skip
        bedrock, enough, done = client(cluster), threading.Event(), threading.Event()

        def load(number: int) -> list[int]:
            counts = []
            while not (enough if number else done).is_set():
                counts.append(complete(bedrock, number, 40)[1])
            return counts

        calls = [threads.submit(load, number) for number in range(6)]
        try:
            cluster.wait_until_ready(2)
            eventually(lambda: running(cluster) == 6, "more at once than one engine has rows for")
            enough.set()
            cluster.wait_until_ready(1)
        finally:
            enough.set()
            done.set()
        counts = [count for call in calls for count in call.result()]
    assert len(counts) > 6
    assert set(counts) == {40}


def running(cluster: RayCluster) -> float:
    return cluster.metric("vllm:num_requests_running")


def generated(cluster: RayCluster) -> float:
    return cluster.metric("vllm:generation_tokens_total")


def hits(cluster: RayCluster) -> float:
    """Prompt tokens found in prefix caches."""
    return cluster.metric("vllm:prefix_cache_hits_total")
