"""LangChain's standard tests of a chat model pass, or say why not.

They are run by a pytest of their own, in the environment of the client. What cannot pass is written down
where the tests are (langchain_suite): as an expected failure with its reason, or as a feature that the model
does not have.
"""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from serving import ANY_MODEL, serving

from .programs import HERE, interpreter, variables

SUITE = HERE / "langchain_suite"
PATIENCE = 1500.0
OPTIONS = ("--id", ANY_MODEL, "--dtype", "float32", "--max-model-len", "4096")


def outcome(case: ET.Element) -> str:
    """What became of one test, as pytest calls it."""
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    skipped = case.find("skipped")
    if skipped is None:
        return "passed"
    return "xfailed" if skipped.get("type") == "pytest.xfail" else "skipped"


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE + 100)
@pytest.mark.parametrize(("tests", "least"), [("chat_bedrock_converse", 35), ("chat_bedrock", 12)])
def test_standard_tests(
    tests: str, least: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    python = interpreter("python")
    report = tmp_path / "report.xml"
    with serving(tmp_path, *OPTIONS) as served:
        done = subprocess.run(
            [
                # -P: the working directory may hold this package, whose pytest plug-in would be loaded.
                python, "-P", "-m", "pytest", "-c", str(SUITE / "pytest.ini"), "--confcutdir", str(SUITE),
                "-p", "no:cacheprovider", "-rfExX", "--tb=short", f"--junitxml={report}",
                str(SUITE / f"{tests}.py"),
            ],
            env=variables(
                {
                    "AWS_ENDPOINT_URL": served.url,
                    "AWS_ACCESS_KEY_ID": "local",
                    "AWS_SECRET_ACCESS_KEY": "local",
                }
            ),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    outcomes = [outcome(case) for case in ET.parse(report).iter("testcase")]
    counts = {each: outcomes.count(each) for each in ("passed", "xfailed", "skipped")}
    record_property("suite", (tests, counts))
    assert counts["passed"] >= least  # the others are what the model does not have, such as eyes
