"""checkov's policies on everything that is deployed (in an environment of its own: `make check-deploy`). What
is not asked of it, and why, is in deploy/checkov.yaml."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from .manifests import DEPLOY
from .render import GOLDEN, PYTHON

CHECKOV = PYTHON.with_name("checkov")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHECKOV.exists(), reason="checkov is not installed: `make check-deploy`"),
]


@pytest.mark.parametrize(
    ("framework", "folder", "least"),
    [
        ("kubernetes", GOLDEN, 300),
        ("cloudformation", DEPLOY / "cloudformation", 20),
        ("dockerfile", DEPLOY / "docker", 50),
    ],
)
def test_no_policy_is_broken(framework: str, folder: Path, least: int) -> None:
    options = {"--config-file": DEPLOY / "checkov.yaml", "--framework": framework, "--directory": folder}
    done = subprocess.run(
        [str(CHECKOV), "--output", "json", *(str(each) for pair in options.items() for each in pair)],
        capture_output=True,
        text=True,
        env=os.environ | {"LOG_LEVEL": "ERROR"},
    )
    found = json.loads(done.stdout)
    broken = [f"{each['check_id']} {each['resource']}" for each in found["results"]["failed_checks"]]
    assert broken == []
    assert found["summary"]["passed"] >= least
