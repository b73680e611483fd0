"""Stores in a directory and in S3: whole or not at all, and again from where it stopped."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from artifacts import write_artifact
from dying_store import killed
from moto import mock_aws

from outcrop_compile.artifact import ArtifactError, DamagedArtifact, open_artifact
from outcrop_compile.artifact.directory import Directory
from outcrop_compile.artifact.manifest import NAME
from outcrop_compile.artifact.open_store import open_store
from outcrop_compile.artifact.store import Store

BUCKET = "artifacts-of-tests"
NEFF = "buckets/decode-4x1-32.neff"


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    if request.param == "directory":
        yield open_store(str(tmp_path / "store"))
        return
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield open_store(f"s3://{BUCKET}/llamas/")


@pytest.fixture
def built(tmp_path: Path) -> Path:
    folder = tmp_path / "built"
    write_artifact(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files but hidden ones."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def overwrite(store: Store, name: str, data: bytes, scratch: Path) -> None:
    scratch.write_bytes(data)
    store.storage.write(name, scratch, lambda done: None)


def test_what_is_pushed_comes_back(store: Store, built: Path, tmp_path: Path) -> None:
    steps: list[tuple[str, float]] = []
    key = store.push(built, progress=lambda *step: steps.append(step)).key
    assert steps[-1] == ("push", 1.0)
    steps.clear()
    artifact = store.pull(key[:8], tmp_path / "pulled", progress=lambda *step: steps.append(step))
    assert contents(tmp_path / "pulled") == contents(built)
    assert artifact.manifest.key == key
    assert steps[-1] == ("pull", 1.0)
    assert [done for _, done in steps] == sorted(done for _, done in steps)
    assert store.verify(key) == artifact.manifest


def test_artifacts_share_what_they_have_in_common(store: Store, built: Path, tmp_path: Path) -> None:
    first = store.push(built)
    before = set(store.storage.names("objects/"))
    write_artifact(tmp_path / "other", salt="other")
    second = store.push(tmp_path / "other")
    new = set(store.storage.names("objects/")) - before
    assert new == {f"objects/{bucket.hlo.sha256}" for bucket in second.buckets}
    found, wrong = store.artifacts()
    assert ({each.key for each in found}, wrong) == ({first.key, second.key}, [])


def test_pushing_again_writes_nothing(store: Store, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.push(built)

    def refuse(*arguments: object) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(store.storage, "write", refuse)
    monkeypatch.setattr(store.storage, "write_bytes", refuse)
    store.push(built)


def test_a_damaged_artifact_is_not_pushed(store: Store, built: Path) -> None:
    (built / NEFF).write_bytes(b"code of decode-4x1-3!")
    with pytest.raises(DamagedArtifact, match=NEFF):
        store.push(built)
    assert list(store.storage.names("")) == []


def test_a_corrupted_object_is_refused_by_name_and_mended(store: Store, built: Path, tmp_path: Path) -> None:
    manifest = store.push(built)
    name = f"objects/{manifest.buckets[0].neff.sha256}"
    overwrite(store, name, b"code of decode-4x1-3!", tmp_path / "scratch")
    with pytest.raises(DamagedArtifact, match=rf"{name} \({NEFF}\).*push --force"):
        store.pull(manifest.key, tmp_path / "pulled")
    with pytest.raises(ArtifactError, match="No such file"):
        open_artifact(tmp_path / "pulled")
    with pytest.raises(DamagedArtifact, match=name):
        store.verify(manifest.key)
    store.push(built, force=True)
    store.pull(manifest.key, tmp_path / "pulled")
    assert contents(tmp_path / "pulled") == contents(built)


def test_a_missing_object_is_named(store: Store, built: Path, tmp_path: Path) -> None:
    manifest = store.push(built)
    name = f"objects/{manifest.weights[1].sha256}"
    if isinstance(store.storage, Directory):
        (store.storage.root / name).unlink()
    else:
        boto3.client("s3").delete_object(Bucket=BUCKET, Key=f"llamas/{name}")
    with pytest.raises(DamagedArtifact, match=rf"{name} \(weights/tp1_.*\): is missing"):
        store.pull(manifest.key, tmp_path / "pulled")


def test_a_manifest_in_the_store_is_checked(store: Store, built: Path, tmp_path: Path) -> None:
    manifest = store.push(built)
    (name,) = store.storage.names("artifacts/")
    data = b"".join(store.storage.read(name))
    overwrite(store, name, data.replace(b'"outcrop": "0.1.0"', b'"outcrop": "0.1.1"'), tmp_path / "scratch")
    with pytest.raises(DamagedArtifact, match="is not the manifest that its name says"):
        store.pull(manifest.key, tmp_path / "pulled")
    found, (wrong,) = store.artifacts()
    assert (found, name in str(wrong)) == ([], True)


def test_keys_may_be_short_if_they_are_clear(store: Store, built: Path) -> None:
    key = store.push(built).key
    with pytest.raises(ArtifactError, match=r"has no artifact .*outcrop compile list --store"):
        store.find("0123456789abcdef" if key[0] != "0" else "f123456789abcdef")
    for wrong in ("abc", "../..", "ABCD"):
        with pytest.raises(ArtifactError, match="is not a key"):
            store.find(wrong)
    (name,) = store.storage.names("artifacts/")
    twin = key[:4] + "0" * 60
    store.storage.write_bytes(f"artifacts/{twin}/{name.split('/')[2]}", b"{}")
    with pytest.raises(ArtifactError, match=f"several artifacts {key[:4]}.*Give more digits"):
        store.find(key[:4])
    assert store.find(key[:5] if twin[4] != key[4] else key).key == key


def test_a_pull_goes_on_where_it_was_cut_off(
    store: Store, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = store.push(built)
    pulled, asked = tmp_path / "pulled", {}
    weights = manifest.weights[0]
    for folder in ("weights", "buckets"):
        (pulled / folder).mkdir(parents=True)
    (pulled / (weights.path + ".part")).write_bytes((built / weights.path).read_bytes()[:1234])
    shutil.copy(built / NEFF, pulled / NEFF)
    read = store.storage.read

    def recorded(name: str, start: int = 0) -> Iterator[bytes]:
        asked[name] = start
        return read(name, start)

    monkeypatch.setattr(store.storage, "read", recorded)
    store.pull(manifest.key, pulled)
    assert asked[f"objects/{weights.sha256}"] == 1234
    assert f"objects/{manifest.buckets[0].neff.sha256}" not in asked
    assert contents(pulled) == contents(built)


def test_a_wrong_remnant_is_not_blamed_on_the_store(store: Store, built: Path, tmp_path: Path) -> None:
    manifest = store.push(built)
    (tmp_path / "pulled/buckets").mkdir(parents=True)
    (tmp_path / f"pulled/{NEFF}.part").write_bytes(b"nonsense")
    store.pull(manifest.key, tmp_path / "pulled")
    assert contents(tmp_path / "pulled") == contents(built)


def test_a_pull_mends_a_damaged_folder(store: Store, built: Path) -> None:
    manifest, whole = store.push(built), contents(built)
    (built / "weights/tp0_sharded_checkpoint.safetensors").write_bytes(b"")
    (built / NEFF).unlink()
    store.pull(manifest.key, built)
    assert contents(built) == whole


def test_another_artifacts_folder_is_left_alone(store: Store, built: Path, tmp_path: Path) -> None:
    key = store.push(built).key
    write_artifact(tmp_path / "other", salt="other")
    before = contents(tmp_path / "other")
    with pytest.raises(ArtifactError, match=r"holds artifact .* Choose another folder"):
        store.pull(key, tmp_path / "other")
    assert contents(tmp_path / "other") == before


def test_a_disk_too_small_is_said_before_anything_is_moved(
    store: Store, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = store.push(built).key
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ArtifactError, match="are missing, and its disk has 0 MiB free"):
        store.pull(key, tmp_path / "pulled")
    assert contents(tmp_path / "pulled") == {}


# -- killed at any moment ---------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 2900, 3100, 6050, 1_000_000])
def test_a_killed_push_leaves_nothing_to_read(built: Path, tmp_path: Path, after: int) -> None:
    root = tmp_path / "store"
    died = killed("push", root, built, after)
    assert died is (after < 1_000_000)
    store = open_store(str(root))
    found, wrong = store.artifacts()
    assert (len(found), wrong) == (0 if died else 1, [])
    for name in store.storage.names("objects/"):
        assert len(b"".join(store.storage.read(name))) == store.storage.size(name)
    manifest = store.push(built)
    assert store.verify(manifest.key) == manifest
    assert not list(root.rglob("*.part"))


@pytest.mark.parametrize("after", [1, 2900, 3100, 6050, 1_000_000])
def test_a_killed_pull_leaves_nothing_to_read(built: Path, tmp_path: Path, after: int) -> None:
    root, pulled = tmp_path / "store", tmp_path / "pulled"
    manifest = open_store(str(root)).push(built)
    died = killed("pull", root, (manifest.key, pulled), after)
    assert died is (after < 1_000_000)
    assert (pulled / NAME).exists() is not died
    open_store(str(root)).pull(manifest.key, pulled)
    assert contents(pulled) == contents(built)
    assert open_artifact(pulled, hashes=True).manifest == manifest


# -- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "words"), [("gs://x/y", "a store is a directory or s3://"), ("s3:///x", "names no bucket")]
)
def test_stores_that_are_none(where: str, words: str) -> None:
    with pytest.raises(ArtifactError, match=words):
        open_store(where)


def test_an_endpoint_is_for_s3(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is for s3://"):
        open_store(str(tmp_path), endpoint="http://127.0.0.1:9000")
    storage: Any = open_store("s3://x/y", endpoint="http://127.0.0.1:9000").storage
    assert storage.client.meta.endpoint_url == "http://127.0.0.1:9000"


def test_what_s3_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws(), pytest.raises(ArtifactError, match=r"s3://nowhere/: .*does not exist.*s3:ListBucket"):
        open_store("s3://nowhere").artifacts()


def test_manifests_in_a_store_are_json(store: Store, built: Path) -> None:
    key = store.push(built).key
    (name,) = store.storage.names("artifacts/")
    assert json.loads(b"".join(store.storage.read(name)))["key"] == key
