"""The servers under test. Their engine is the real scheduler on a model without weights, or, with
`--engine vllm` or `--engine vllm-server`, the real vLLM on the demo model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import httpx
import pytest
import vllm_engine as vllm
from engine_kinds import OWN

from outcrop.api.admission import ApiLimits
from outcrop.api.bedrock.options import ControlOptions
from outcrop.api.job_runner import JobOptions
from outcrop.settings import ModelSettings

from ..api.server import Server, running
from .engine import FakeEngine
from .folder_buckets import FolderBuckets
from .vllm_server import running_vllm

Serve = Callable[..., AbstractContextManager[Server]]
"""Starts a server; options as in `running`."""

LENGTH = 2048
"""Tokens of context, as the fake engine has them."""


@pytest.fixture(scope="session")
def serve(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    kind = pytestconfig.getoption("--engine")
    if kind == OWN:
        yield lambda **options: running(FakeEngine(), **options)
        return
    with vllm.model_table(kind, tmp_path_factory.mktemp("vllm"), LENGTH) as table:
        yield partial(running_vllm, ModelSettings.model_validate(table).engine_config())


@pytest.fixture(scope="session")
def patience(pytestconfig: pytest.Config) -> float:
    """Seconds that an answer may take."""
    return 30 if pytestconfig.getoption("--engine") == OWN else vllm.START


@pytest.fixture(scope="session")
def server(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of one model in demo mode, with a real scheduler and KV pool under it."""
    folder: Path = tmp_path_factory.mktemp("buckets")
    control = ControlOptions(FolderBuckets(folder), JobOptions(side_by_side=0))
    limits = ApiLimits(max_inflight=4096)  # of which many are reserved, a few at a time
    with serve(limits=limits, control=control) as server:
        yield server


@pytest.fixture(scope="session")
def http(server: Server, patience: float) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=patience) as client:
        yield client
