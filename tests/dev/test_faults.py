"""Injected faults, as boto3 meets them: typed exceptions, retries counted, streams that break."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EventStreamError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from urllib3.exceptions import ProtocolError
from urllib3.exceptions import ReadTimeoutError as NoAnswerInTime

from outcrop.api.admission import ApiLimits
from outcrop.api.error_kind import INVOKE_STREAMABLE, STREAMABLE, Kind
from outcrop.api.faults import Fault, parse, parse_suffix

from ..api.doubles import Script, ScriptedEngine
from ..api.server import Server, eventually, running

MODEL = "meta.llama3-8b-instruct-v1:0"
USER = [{"role": "user", "content": [{"text": "Hi"}]}]
NATIVE = json.dumps({"prompt": "Hi"})
CONVERSE = f"/model/{MODEL}/converse"
BODY = {"messages": USER}


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    with running(ScriptedEngine(), limits=ApiLimits(fault_injection=True)) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Server:
    shared_server.engine.script = Script()
    shared_server.engine.requests.clear()
    return shared_server


Connect = Callable[..., Any]


@pytest.fixture
def connect(server: Server, request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes a client whose calls carry a fault; each client counts its calls by itself."""
    clients = []

    def make(fault: str = "", service: str = "bedrock-runtime", **options: Any) -> Any:
        client = boto3.client(
            service,
            endpoint_url=server.url,
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
            config=Config(**{"retries": {"total_max_attempts": 1}} | options),
        )
        if fault:
            counted = f"{fault},name={request.node.name.partition('[')[0]}.{id(client)}"
            client.meta.events.register(
                f"before-sign.{service}",
                lambda request, **_: request.headers.add_header("x-outcrop-fault", counted),
            )
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def calls(client: Any, model_id: str = MODEL) -> dict[str, Callable[[], Any]]:
    """One of each of the operations on a model, its stream read to the end."""
    return {
        "Converse": lambda: client.converse(modelId=model_id, messages=USER),
        "ConverseStream": lambda: list(client.converse_stream(modelId=model_id, messages=USER)["stream"]),
        "InvokeModel": lambda: client.invoke_model(modelId=model_id, body=NATIVE)["body"].read(),
        "InvokeModelWithResponseStream": lambda: list(
            client.invoke_model_with_response_stream(modelId=model_id, body=NATIVE)["body"]
        ),
    }


OPERATIONS = ("Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream")


def metric(server: Server, series: str) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(series))


def assert_nothing_left(server: Server) -> None:
    eventually(lambda: server.engine.open == 0 and server.app.state.admission.inflight == 0)


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", Kind)
def test_every_error_of_the_table(server: Server, connect: Connect, kind: Kind, operation: str) -> None:
    client = connect(kind.code)
    with pytest.raises(ClientError) as caught:
        calls(client)[operation]()
    answer = caught.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (kind.code, kind.status)
    assert answer["Error"]["Message"]
    assert answer["ResponseMetadata"]["RequestId"]
    declared = {shape.name for shape in client.meta.service_model.operation_model(operation).error_shapes}
    if kind.code in declared:
        assert type(caught.value) is getattr(client.exceptions, kind.code)
    assert server.engine.requests == []


def test_the_members_of_a_model_error(connect: Connect) -> None:
    client = connect("ModelErrorException")
    with pytest.raises(client.exceptions.ModelErrorException) as caught:
        client.converse(modelId=MODEL, messages=USER)
    assert caught.value.response["originalStatusCode"] == 500


def test_the_control_plane_too(connect: Connect) -> None:
    client = connect("AccessDeniedException", service="bedrock")
    with pytest.raises(client.exceptions.AccessDeniedException):
        client.list_foundation_models()


def test_health_and_metrics_know_no_faults(server: Server) -> None:
    for path in ("/health/live", "/health/ready", "/metrics"):
        assert httpx.get(f"{server.url}{path}", headers={"x-outcrop-fault": "nonsense"}).status_code == 200


def test_faults_count_as_answers_of_their_operation(server: Server, connect: Connect) -> None:
    series = 'outcrop_http_requests_total{operation="Converse",status="429"}'
    before = metric(server, series)
    with pytest.raises(ClientError):
        calls(connect("ThrottlingException"))["Converse"]()
    assert metric(server, series) == before + 1


# -- which calls -----------------------------------------------------------------------------------


def test_retries_get_past_the_first_calls(server: Server, connect: Connect) -> None:
    client = connect("ThrottlingException, first=2", retries={"total_max_attempts": 3, "mode": "standard"})
    answer = client.converse(modelId=MODEL, messages=USER)
    assert answer["ResponseMetadata"]["RetryAttempts"] == 2
    assert len(server.engine.requests) == 1


def test_retries_give_up(server: Server, connect: Connect) -> None:
    client = connect("ServiceUnavailableException, first=3", retries={"total_max_attempts": 3})
    with pytest.raises(client.exceptions.ServiceUnavailableException) as caught:
        client.converse(modelId=MODEL, messages=USER)
    assert caught.value.response["ResponseMetadata"]["RetryAttempts"] == 2
    assert server.engine.requests == []


def outcomes(call: Callable[[], Any], times: int) -> str:
    """One character for each call: a dot, or X where it failed."""
    found = ""
    for _ in range(times):
        try:
            call()
            found += "."
        except ClientError:
            found += "X"
    return found


@pytest.mark.parametrize(
    ("which", "expected"),
    [("", "XXXXXX"), (",first=2", "XX...."), (",every=3", "..X..X"), (",every=1", "XXXXXX")],
)
def test_which_calls(connect: Connect, which: str, expected: str) -> None:
    assert outcomes(calls(connect(f"InternalServerException{which}"))["Converse"], 6) == expected


def test_faults_and_names_are_counted_apart(server: Server) -> None:
    def status(fault: str) -> int:
        return httpx.post(
            f"{server.url}{CONVERSE}", json=BODY, headers={"x-outcrop-fault": fault}
        ).status_code

    one, two, other = (
        "ConflictException,first=1,name=a",
        "ConflictException,first=1,name=b",
        "name=a,latency=1ms,first=1",
    )
    assert [status(fault) for fault in (one, two, other, one, two)] == [400, 400, 200, 200, 200]


# -- delays ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["latency=30s", "first-token=30s", "latency=30s,ThrottlingException"])
def test_a_delay_outlasts_a_client_without_patience(server: Server, connect: Connect, fault: str) -> None:
    gone = 'outcrop_http_requests_total{operation="Converse",status="499"}'
    before = metric(server, gone)
    with pytest.raises(ReadTimeoutError):
        calls(connect(fault, read_timeout=0.3))["Converse"]()
    eventually(lambda: metric(server, gone) == before + 1)
    assert server.engine.requests == []
    assert_nothing_left(server)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("fault", ["latency=5ms", "first-token=0.005s", "latency=1ms,first-token=1ms"])
def test_after_a_delay_the_answer_is_the_same(connect: Connect, fault: str, operation: str) -> None:
    answers = []
    for client in (connect(fault), connect()):
        answer = json.loads(json.dumps(calls(client)[operation](), default=lambda data: json.loads(data)))
        answers.append(without_times(answer))
    assert answers[0] == answers[1]


def without_times(answer: Any) -> Any:
    if isinstance(answer, dict):
        left_out = ("latencyMs", "invocationLatency", "firstByteLatency", "ResponseMetadata")
        return {name: without_times(value) for name, value in answer.items() if name not in left_out}
    return [without_times(each) for each in answer] if isinstance(answer, list) else answer


def test_the_first_token_is_late_but_the_stream_has_begun(server: Server, connect: Connect) -> None:
    client = connect("first-token=30s", read_timeout=0.5)
    stream = client.converse_stream(modelId=MODEL, messages=USER)["stream"]
    seen: list[Any] = []
    with closing(stream), pytest.raises(NoAnswerInTime):
        seen.extend(stream)
    assert seen == [{"messageStart": {"role": "assistant"}}]
    assert_nothing_left(server)


@pytest.mark.parametrize("length", [0, 100, 2_000_000])
def test_a_delayed_body_arrives_whole(server: Server, length: int) -> None:
    body = {"messages": [{"role": "user", "content": [{"text": "x" * length + "REFUSE"}]}]}
    answer = httpx.post(f"{server.url}{CONVERSE}", json=body, headers={"x-outcrop-fault": "latency=20ms"})
    assert answer.status_code == 400
    assert ("no such words here" in answer.text) == (length < 500)  # else too long for the context


# -- broken streams --------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["ConverseStream", "InvokeModelWithResponseStream"])
@pytest.mark.parametrize("after", [0, 1, 2, 99])
@pytest.mark.parametrize("kind", sorted(STREAMABLE, key=lambda kind: kind.code))
def test_a_stream_ends_with_an_exception(
    server: Server, connect: Connect, operation: str, after: int, kind: Kind
) -> None:
    seen, caught = read_until_broken(connect(f"break-after={after}:{kind.code}"), operation)
    assert isinstance(caught, EventStreamError)
    assert caught.response["Error"]["Code"] == kind.event_name
    assert caught.response["Error"]["Message"]
    content = [event for event in seen if "contentBlockDelta" in event or "chunk" in event]
    assert len(content) == after if after < 99 else 3 <= len(content) < after
    assert not any("messageStop" in event or "metadata" in event for event in seen)
    if operation == "ConverseStream":
        assert seen[0] == {"messageStart": {"role": "assistant"}}
    assert_nothing_left(server)


def read_until_broken(client: Any, operation: str) -> tuple[list[Any], Exception]:
    if operation == "ConverseStream":
        stream = client.converse_stream(modelId=MODEL, messages=USER)["stream"]
    else:
        stream = client.invoke_model_with_response_stream(modelId=MODEL, body=NATIVE)["body"]
    seen: list[Any] = []
    with closing(stream), pytest.raises(Exception) as caught:
        seen.extend(stream)
    return seen, caught.value


def test_only_one_operation_declares_a_timeout_in_its_stream(server: Server, connect: Connect) -> None:
    client = connect("break-after=1:ModelTimeoutException")
    _, caught = read_until_broken(client, "InvokeModelWithResponseStream")
    assert isinstance(caught, EventStreamError)
    assert caught.response["Error"]["Code"] == "modelTimeoutException"
    with pytest.raises(
        client.exceptions.ValidationException, match="a stream of ConverseStream cannot end with"
    ):
        client.converse_stream(modelId=MODEL, messages=USER)


def test_the_streamable_exceptions_are_those_of_the_service_model(connect: Connect) -> None:
    model = connect().meta.service_model
    for operation, kinds in (
        ("ConverseStream", STREAMABLE),
        ("InvokeModelWithResponseStream", INVOKE_STREAMABLE),
    ):
        events = model.operation_model(operation).get_event_stream_output()
        declared = {shape.name for shape in events.members.values() if shape.metadata.get("exception")}
        assert declared == {kind.code for kind in kinds}


@pytest.mark.parametrize("operation", ["ConverseStream", "InvokeModelWithResponseStream"])
@pytest.mark.parametrize("after", [0, 2, 99])
def test_a_stream_loses_its_connection(server: Server, connect: Connect, operation: str, after: int) -> None:
    server.engine.script = Script(hold=after == 0)
    seen, caught = read_until_broken(connect(f"break-after={after}:connection"), operation)
    assert isinstance(caught, ProtocolError)
    assert len([event for event in seen if "contentBlockDelta" in event or "chunk" in event]) <= after
    assert not any("messageStop" in event or "metadata" in event for event in seen)
    assert_nothing_left(server)


def test_a_broken_stream_gives_up_its_generation(server: Server, connect: Connect) -> None:
    server.engine.script = Script(hold=True)
    before, aborts = server.engine.aborted, 'vllm:request_success_total{finished_reason="abort"'
    counted = metric(server, aborts)
    read_until_broken(connect("break-after=1"), "ConverseStream")
    eventually(lambda: server.engine.aborted == before + 1)
    assert metric(server, aborts) == counted + 1
    assert_nothing_left(server)


def test_what_is_wrong_with_a_call_comes_before_its_stream_breaks(connect: Connect) -> None:
    client = connect("break-after=1:connection")
    with pytest.raises(client.exceptions.ValidationException, match="must start with a user message"):
        client.converse_stream(modelId=MODEL, messages=[])


def test_a_stream_that_fails_by_itself_ends_with_its_own_exception(server: Server, connect: Connect) -> None:
    server.engine.script = Script(error=RuntimeError(), fail_after=2)
    _, caught = read_until_broken(connect("break-after=9:ThrottlingException"), "ConverseStream")
    assert isinstance(caught, EventStreamError)
    assert caught.response["Error"]["Code"] == "internalServerException"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_answer_loses_its_connection(server: Server, connect: Connect, operation: str) -> None:
    with pytest.raises((ConnectionClosedError, ResponseStreamingError, ProtocolError)):
        calls(connect("connection"))[operation]()
    assert server.engine.requests == []


def test_boto3_retries_a_lost_connection(server: Server, connect: Connect) -> None:
    client = connect("connection,first=1", retries={"total_max_attempts": 2})
    assert client.converse(modelId=MODEL, messages=USER)["ResponseMetadata"]["RetryAttempts"] == 1


def test_http2_loses_one_stream_and_keeps_the_others(server: Server) -> None:
    with httpx.Client(base_url=server.url, http1=False, http2=True) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.post(CONVERSE, json=BODY, headers={"x-outcrop-fault": "connection"})
        assert client.post(CONVERSE, json=BODY).status_code == 200


# -- the model id ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model_id",
    [MODEL, f"us.{MODEL}", f"arn:aws:bedrock:us-east-1::foundation-model/{MODEL}"],
)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_fault_at_the_end_of_a_model_id(connect: Connect, model_id: str, operation: str) -> None:
    client = connect()
    with pytest.raises(client.exceptions.ModelNotReadyException):
        calls(client, f"{model_id}--fault-ModelNotReadyException")[operation]()


def test_a_stream_broken_by_its_model_id(connect: Connect) -> None:
    model_id = f"{MODEL}--fault-break-after:1:ThrottlingException--latency:1ms"
    with pytest.raises(EventStreamError, match="throttlingException"):
        calls(connect(), model_id)["ConverseStream"]()


def test_a_header_goes_before_a_suffix(connect: Connect) -> None:
    client = connect("ConflictException,first=1")
    call = calls(client, f"{MODEL}--fault-ModelNotReadyException")["Converse"]
    with pytest.raises(ClientError, match="ConflictException"):
        call()
    call()


def test_without_its_suffix_the_id_must_name_a_model() -> None:
    with running(ScriptedEngine(), demo=False, limits=ApiLimits(fault_injection=True)) as server:
        for name, status in ((MODEL, 200), ("other", 400)):
            url = f"{server.url}/model/{name}--fault-latency:1ms/converse"
            assert httpx.post(url, json=BODY).status_code == status


def test_when_off_neither_header_nor_suffix_means_anything() -> None:
    with running(ScriptedEngine(), demo=False, aliases=("x--fault-ThrottlingException",)) as server:
        for fault in ("ThrottlingException", "nonsense"):
            headers = {"x-outcrop-fault": fault}
            assert httpx.post(f"{server.url}{CONVERSE}", json=BODY, headers=headers).status_code == 200
        for name, status in (
            ("x--fault-ThrottlingException", 200),
            (f"{MODEL}--fault-ThrottlingException", 400),
        ):
            assert httpx.post(f"{server.url}/model/{name}/converse", json=BODY).status_code == status


# -- the language of faults ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("ThrottlingException", Fault(error=Kind.THROTTLING)),
        (" ThrottlingException , first=2 ", Fault(error=Kind.THROTTLING, first=2)),
        ("latency=750ms", Fault(latency=0.75)),
        ("latency=2s,first-token=1.5s,every=3", Fault(latency=2, first_token=1.5, every=3)),
        ("break-after=3", Fault(break_after=3, break_with=Kind.MODEL_STREAM_ERROR)),
        ("break-after=0:connection", Fault(break_after=0)),
        ("connection,name=a.B-c_1", Fault(cut=True, name="a.B-c_1")),
    ],
)
def test_what_can_be_said(text: str, fault: Fault) -> None:
    assert parse(text) == fault
    as_suffix = text.replace(" ", "").replace(",", "--").replace("=", ":")
    assert parse_suffix(as_suffix) == fault


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' is none of the faults"),
        ("Throttling", "'Throttling' is none of the faults"),
        ("ThrottlingException,", "'' is none of the faults"),
        ("delay=3s", "'delay=3s' is none of the faults"),
        ("first=2", "there is no fault in it"),
        ("name=a", "there is no fault in it"),
        ("latency=2", "latency needs a time such as 750ms or 2s"),
        ("latency=-2s", "latency needs a time such as 750ms or 2s"),
        ("latency=0s", "latency must be more than 0 and at most 600s"),
        ("first-token=601s", "first-token must be more than 0 and at most 600s"),
        ("break-after=x", "break-after needs a number from 0 to 999999"),
        ("break-after=3:AccessDeniedException", "no stream can end with AccessDeniedException"),
        ("break-after=3:Nonsense", "'Nonsense' is none of the faults"),
        ("ConflictException,first=0", "first needs a number from 1 to 999999"),
        ("ConflictException,every=1.5", "every needs a number from 1 to 999999"),
        ("ConflictException,first=1,every=2", "first and every exclude each other"),
        ("ConflictException,connection", "an answer can end in one way only"),
        ("ConflictException,break-after=1", "an answer can end in one way only"),
        ("ConflictException,ThrottlingException", "error is given twice"),
        ("latency=1s,latency=1s", "latency is given twice"),
        ("first-token=1s,first-token=1s", "first-token is given twice"),
        ("connection,name=a b", "a name has 1 to 128 letters"),
    ],
)
def test_what_is_malformed(server: Server, text: str, problem: str) -> None:
    answer = httpx.post(f"{server.url}{CONVERSE}", json=BODY, headers={"x-outcrop-fault": text})
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (400, "ValidationException")
    message = answer.json()["message"]
    assert f"The fault '{text.strip()}' is malformed: {problem}" in message
    assert "break-after=3:ThrottlingException" in message
    assert "ModelTimeoutException" in message


def test_a_long_fault_is_not_repeated_whole(server: Server) -> None:
    headers = {"x-outcrop-fault": "x" * 5000}
    answer = httpx.post(f"{server.url}{CONVERSE}", json=BODY, headers=headers)
    assert len(answer.text) < 2000
