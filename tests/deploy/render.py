"""The chart as Helm renders it for each file of deploy/helm/values. `python tests/deploy/render.py` writes
the results into golden/, which tests compare with what the chart says now."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HELM = ROOT / "deploy" / "helm"
VALUES = sorted((HELM / "values").glob("*.yaml"))
GOLDEN = HERE / "golden"
PYTHON = ROOT / ".venv-deploy" / "bin" / "python"
"""Of the environment that `make check-deploy` makes, which has Helm."""


def releases(values: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What Helm makes of each; see helm_program.py."""
    done = subprocess.run(
        [str(PYTHON), str(HERE / "helm_program.py")],
        input=json.dumps({"chart": str(HELM / "outcrop"), "values": values}),
        capture_output=True,
        text=True,
        check=True,
    )
    answer: list[dict[str, Any]] = json.loads(done.stdout)
    return answer


def document(manifests: dict[str, str]) -> str:
    """As `helm template` prints them, less what a user is told."""
    texts = {name: text.strip() for name, text in sorted(manifests.items()) if name.endswith(".yaml")}
    return "".join(f"---\n# Source: {name}\n{text}\n" for name, text in texts.items() if text)


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for path, release in zip(
        VALUES, releases([yaml.safe_load(each.read_text()) for each in VALUES]), strict=True
    ):
        (GOLDEN / path.name).write_text(document(release["manifests"]))


if __name__ == "__main__":
    main()
