"""`outcrop compile list | verify | push | pull` as a person meets them."""

import json
from pathlib import Path

import pytest
from artifacts import write_artifact
from typer.testing import CliRunner, Result

from outcrop.cli.main import app


def outcrop(*words: object) -> Result:
    return CliRunner().invoke(app, ["compile", *map(str, words)])


@pytest.fixture
def built(tmp_path: Path) -> Path:
    write_artifact(tmp_path / "built")
    return tmp_path / "built"


def test_from_a_folder_to_another_through_a_store(built: Path, tmp_path: Path) -> None:
    store, pulled = tmp_path / "store", tmp_path / "pulled"
    assert "holds no artifacts" in outcrop("list", "--store", store).output
    pushed = outcrop("push", built, "--store", store)
    assert pushed.exit_code == 0
    assert "verify   100%" in pushed.output
    assert "push     100%" in pushed.output
    (listed,) = json.loads(outcrop("list", "--store", store, "--json").stdout)
    assert listed == listed | {"model": "tiny", "tp": 2, "dtype": "bfloat16", "buckets": 2, "sdk": "2.31.1"}
    assert f"outcrop compile pull {listed['key']} --store {store}" in pushed.stdout
    result = outcrop("pull", listed["key"], "--store", store, "--out", pulled)
    assert (result.exit_code, f"is in {pulled}" in result.stdout) == (0, True)
    for words in (("verify", pulled), ("verify", listed["key"], "--store", store)):
        assert outcrop(*words).stdout.startswith(f"{listed['key']} (tiny, tp 2, 0 MiB) is whole")
    table = outcrop("list", "--store", store).stdout.splitlines()
    assert [line.split()[0] for line in table] == ["key", listed["key"]]


def test_what_is_damaged_is_told_in_a_line(built: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    outcrop("push", built, "--store", store)
    (built / "buckets/decode-4x1-32.neff").unlink()
    result = outcrop("verify", built)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("outcrop: buckets/decode-4x1-32.neff: No such file")
    (manifest,) = store.glob("artifacts/*/*.json")
    manifest.write_text("{}")
    result = outcrop("list", "--store", store)
    assert result.exit_code == 2
    assert manifest.name in result.stderr
    result = outcrop("push", tmp_path / "nothing", "--store", store)
    assert (result.exit_code, "An artifact is a folder that holds manifest.json" in result.stderr) == (
        2,
        True,
    )
