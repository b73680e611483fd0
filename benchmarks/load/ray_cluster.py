"""Outcrop on a Ray cluster of this machine alone, in the environment that `make ray` makes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from benchmarks.load.server import DEMO

ROOT = Path(__file__).parents[2]
SERVE = ROOT / ".venv-ray" / "bin" / "serve"
MODEL = "outcrop.fake"

_PATIENCE = 240.0
_TOKEN = "0" * 32  # Ray asks everyone for one


class RayCluster:
    """A running application. url: of Ray's proxy."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], url: str) -> None:
        self.url = url
        self._folder = folder
        self._process = process
        self._http = httpx.Client(base_url=url, timeout=_PATIENCE)

    def replicas(self, deployment: str = MODEL) -> list[psutil.Process]:
        """The actors of a deployment."""
        found = self._application()["deployments"][deployment]["replicas"]
        return [psutil.Process(each["pid"]) for each in found if psutil.pid_exists(each["pid"])]

    def metric(self, name: str) -> float:
        """A metric of the API's, summed over its series."""
        text = self._http.get("/metrics").text
        return sum(map(float, re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.M)))

    def wait_until_ready(self, replicas: int) -> None:
        """Until so many engines are there, all of the settings that were deployed last, and calls are
        answered."""
        deadline = time.monotonic() + _PATIENCE
        while not (self._running() == replicas and self._is_ready()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Ray Serve is not ready:\n{self.log[-4000:]}")
            time.sleep(0.5)

    @property
    def log(self) -> str:
        return (self._folder / "ray.log").read_text()

    def update(self, **changes: Any) -> None:
        """Deploy changed settings in place, as an operator does; returns before that is done."""
        config = _configure(self._folder, int(self.url.rsplit(":", 1)[1]), **changes)
        command = [SERVE, "deploy", "--address", self._dashboard(), config]
        subprocess.run(command, env=_environment(), check=True, capture_output=True)

    def _dashboard(self) -> str:
        """Where Ray's own API answers; empty until it does."""
        found = re.search(r"dashboard at \S*?(http://[\d.:]+)", self.log)
        return found[1] if found else ""

    def _application(self) -> dict[str, Any]:
        """What Ray says of it; nothing before Ray answers."""
        if not (address := self._dashboard()):
            return {}
        answer = self._http.get(
            f"{address}/api/serve/applications/", headers={"authorization": f"Bearer {_TOKEN}"}
        )
        found: dict[str, Any] = answer.json().get("applications", {}).get("outcrop", {})
        return found

    def _running(self) -> int:
        """Engines, once the application is as it was deployed last."""
        application = self._application()
        if application.get("status") != "RUNNING":
            return 0
        states = [each["state"] for each in application["deployments"][MODEL]["replicas"]]
        return states.count("RUNNING") if set(states) == {"RUNNING"} else 0

    def _is_ready(self) -> bool:
        try:
            return self._http.get("/health/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def end(self) -> None:
        """Leave no process behind."""
        self._http.close()
        family = _family(self._process)
        self._process.send_signal(signal.SIGINT)
        _, alive = psutil.wait_procs(family, timeout=30)
        for each in alive:
            each.kill()
        self._process.wait()


@contextmanager
def ray_cluster(folder: Path, replicas: int, **settings: Any) -> Iterator[RayCluster]:
    """folder: for its files. settings: as of `_configure`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = _configure(folder, port, replicas=replicas, **settings)
    with (folder / "ray.log").open("wb") as log:
        process = subprocess.Popen(
            [SERVE, "run", config, "--address", "local"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=_environment(),
        )  # fmt: skip
    cluster = RayCluster(folder, process, f"http://127.0.0.1:{port}")
    try:
        cluster.wait_until_ready(replicas)
        yield cluster
    finally:
        cluster.end()


def _configure(
    folder: Path,
    port: int,
    *,
    replicas: int,
    model: Mapping[str, Any],
    server: Mapping[str, Any] = {},
    deployment: Mapping[str, Any] = {},
) -> Path:
    """Write an outcrop.toml and a Serve configuration; the path of the latter. model: settings of the fake
    model. server: others. deployment: Ray's, of the engines."""
    number = len(list(folder.glob("outcrop-*.toml")))
    toml = folder / f"outcrop-{number}.toml"  # Ray looks at an application again when its arguments change
    whole = {"state": str(folder / "state.db")} | dict(server)
    fake = {"path": str(DEMO), "id": MODEL, "backend": "fake"} | dict(model)
    toml.write_text("\n".join([*_lines(whole), "[[models]]", *_lines(fake)]))
    little = {"ray_actor_options": {"num_cpus": 0.01}}
    count = {} if "autoscaling_config" in deployment else {"num_replicas": replicas}  # Ray wants one of both
    config = {
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [
            {
                "name": "outcrop",
                "import_path": "outcrop.ray_serve.app:build",
                "args": {"config": str(toml)},
                "deployments": [
                    {"name": MODEL, **count, **little, **deployment},
                    {"name": "api", **little},
                ],
            }
        ],
    }
    path = folder / f"serve-{number}.yaml"
    path.write_text(json.dumps(config))  # which is YAML, too
    return path


def _lines(values: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {_toml(value)}" for name, value in values.items()]


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(_lines(value)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OUTCROP_", "RAY_"))}
    source = os.pathsep.join(str(ROOT / name) for name in ("server", "compile", "kernels"))
    return kept | {
        "PYTHONPATH": source,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "200",  # a busy machine takes longer than Ray thinks
    }


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
