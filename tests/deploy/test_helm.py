"""The chart itself, by Helm (in an environment of its own: `make check-deploy`)."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import yaml

from .render import GOLDEN, HERE, PYTHON, VALUES, document, releases
from .test_chart import CUSTOM

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="Helm is not installed: `make check-deploy`")

NEURON = {
    "model": {"artifact": {"key": "0123456789ab", "store": "s3://bucket/store"}},
    "instance": {"type": "inf2.48xlarge"},
}


@pytest.fixture(scope="module")
def examples() -> dict[str, dict[str, Any]]:
    found = releases([yaml.safe_load(path.read_text()) for path in VALUES])
    return {path.name: release for path, release in zip(VALUES, found, strict=True)}


@pytest.mark.parametrize("name", [path.name for path in VALUES])
def test_examples_render_as_they_did(examples: dict[str, dict[str, Any]], name: str) -> None:
    """A change of the chart shows in golden/ (`python tests/deploy/render.py` writes it)."""
    assert document(examples[name]["manifests"]) == (GOLDEN / name).read_text()


@pytest.mark.parametrize("name", [path.name for path in VALUES])
def test_helm_lint(examples: dict[str, dict[str, Any]], name: str) -> None:
    assert [each for each in examples[name]["messages"] if each["error"] != "icon is recommended"] == []
    assert examples[name]["errors"] == []


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "model.artifact.key: what `outcrop compile push` printed"),
        ({"replicas": 2}, "additional properties 'replicas' not allowed"),
        ({"backend": "cpu"}, "model.path: backend cpu needs a checkpoint"),
        (NEURON | {"tensorParallel": 24, "replicasPerPod": 2}, "24 devices, and inf2.48xlarge has 12"),
        (NEURON | {"tensorParallel": 3}, "tensorParallel"),
        (
            NEURON | {"tensorParallel": 8, "replicasPerPod": 3, "instance": {"type": "trn1.32xlarge"}},
            "a pod would need 12 devices: of trn1.32xlarge only 1, 4, 8 or 16",
        ),
        (NEURON | {"serviceMonitor": {"enabled": True}}, "serviceMonitor.apiKeySecret.name"),
        (NEURON | {"karpenter": {"enabled": True, "nodeRole": "r", "amiAlias": "al2023@latest"}}, "amiAlias"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_cannot_work_is_refused(values: dict[str, Any], says: str) -> None:
    (release,) = releases([values])
    assert says in release["error"]


@pytest.mark.slow
def test_custom_resources_are_what_their_definitions_take(examples: dict[str, dict[str, Any]]) -> None:
    crds = HERE / "crds"
    if not (crds / "node_modules").exists():
        pytest.skip("the definitions are not installed: `make check-deploy`, with Node.js")
    found = [
        each
        for release in examples.values()
        for template, text in release["manifests"].items()
        if template.endswith(".yaml")
        for each in yaml.safe_load_all(text)
        if isinstance(each, dict) and each.get("kind") in CUSTOM
    ]
    assert {each["kind"] for each in found} == CUSTOM
    assert wrong(found) == ""
    misspelt = json.loads(json.dumps(found).replace('"minReplicaCount"', '"minReplicas"'))
    assert "'\"minReplicas\"' does not exist" in wrong(misspelt)


def wrong(resources: list[dict[str, Any]]) -> str:
    """What tests/deploy/crds finds in them."""
    done = subprocess.run(
        ["node", "validate.mjs"],
        cwd=HERE / "crds",
        input=json.dumps(resources),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
