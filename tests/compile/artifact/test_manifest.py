"""Opening an artifact: what is not whole, or was made for something else, is refused by name."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from artifacts import KERNELS, SDK, rewrite, write_artifact

from outcrop_compile.artifact import (
    ArtifactError,
    ArtifactMismatch,
    DamagedArtifact,
    Manifest,
    Place,
    open_artifact,
    require,
)
from outcrop_compile.artifact.kernels import built_with, kernel_digests, kernel_names, source_digest
from outcrop_compile.artifact.manifest import NAME, decode, encode


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_artifact(tmp_path)
    return tmp_path


def edited(folder: Path, **changes: Any) -> None:
    """Change fields of the written manifest, whose names have `__` for a dot, and nothing else of it."""
    path = folder / NAME
    data = json.loads(path.read_bytes())
    for name, value in changes.items():
        *parents, last = name.split("__")
        place = data
        for parent in parents:
            place = place[int(parent)] if isinstance(place, list) else place[parent]
        place[last] = value
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("hashes", [False, True])
def test_a_whole_artifact_opens(folder: Path, hashes: bool) -> None:
    steps: list[float] = []
    artifact = open_artifact(folder, hashes=hashes, progress=lambda _, done: steps.append(done))
    assert [path.read_bytes()[:1] for path in artifact.weights()] == [b"\0", b"\1"]
    assert [bucket.tag for bucket in artifact.manifest.buckets] == ["decode-4x1-32", "prefill-1x128-32"]
    assert steps == sorted(steps)
    assert steps[-1] == 1.0
    assert decode(encode(artifact.manifest)) == artifact.manifest


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "buckets/decode-4x1-32.neff").unlink()
    with pytest.raises(DamagedArtifact, match=r"buckets/decode-4x1-32\.neff: No such file.*outcrop compile"):
        open_artifact(folder)


def test_a_file_cut_off_is_named(folder: Path) -> None:
    path = folder / "weights/tp1_sharded_checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedArtifact, match=r"tp1_.*has 2999 bytes, the manifest says 3000"):
        open_artifact(folder)


def test_a_changed_byte_is_found_by_its_hash(folder: Path) -> None:
    name = "buckets/decode-4x1-32.neff"
    (folder / name).write_bytes(b"code of decode-4x1-3!")
    open_artifact(folder)
    with pytest.raises(DamagedArtifact, match=rf"{name}: has sha256") as caught:
        open_artifact(folder, hashes=True)
    assert caught.value.file == name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shapes__block_size": 64}, r"buckets\[0\]\.key"),
        ({"sdk__packages__neuronx-cc": "2.27.0.0"}, r"buckets\[0\]\.key"),
        ({"target__tp": 4}, r"buckets\[0\]\.key"),
        ({"buckets__1__flags": ["-O3"]}, r"buckets\[1\]\.key"),
        ({"model__sha256": "ef" * 32}, "key is not that of"),
        ({"model__config__num_layers": 3}, "key is not that of"),
        ({"weights": []}, "weights has 0 files for target.tp 2"),
        ({"shapes__max_rows": "four"}, r"Expected `int`, got `str` - at `\$\.shapes\.max_rows`"),
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"buckets__0__neff__path": "../../etc/passwd"}, "not one inside the artifact"),
        ({"buckets__0__neff__sha256": "12"}, "64 hexadecimal digits"),
    ],
)
def test_a_manifest_at_odds_with_itself_is_refused(folder: Path, changes: dict[str, Any], words: str) -> None:
    edited(folder, **changes)
    with pytest.raises(DamagedArtifact, match=words):
        open_artifact(folder)


def test_a_manifest_that_is_no_json(folder: Path) -> None:
    (folder / NAME).write_bytes(encode(open_artifact(folder).manifest)[:100])
    with pytest.raises(DamagedArtifact, match="not a manifest"):
        open_artifact(folder)


@pytest.mark.parametrize(("format", "words"), [(1, "outcrop compile build"), (3, "pip install --upgrade")])
def test_another_format_is_said_to_be_older_or_newer(folder: Path, format: int, words: str) -> None:
    edited(folder, format=format, unknown_here=True)
    with pytest.raises(ArtifactMismatch, match=f"format is {format}.*{words}"):
        open_artifact(folder)


def test_a_folder_without_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json: No such file.*outcrop compile pull"):
        open_artifact(tmp_path)


@pytest.mark.parametrize(
    ("place", "field", "mend"),
    [
        (Place(arch="trn2"), "target.arch", "outcrop compile build --model tiny"),
        (Place(cores=1), "target.tp", "outcrop compile build .*--tp 1"),
        (Place(model="ee" * 32), "model.sha256", "--model THIS_MODEL"),
        (
            Place(packages=SDK.packages | {"neuronx-cc": "2.23.6484.0"}),
            "sdk.packages.neuronx-cc",
            "pip install .*neuronx-cc==2.26.6360.0",
        ),
        (
            Place(kernels={"paged_decode_attention.gather": "00" * 32}),
            "kernels.paged_decode_attention.gather",
            "--kernels paged_decode_attention --indirect-dma",
        ),
        (Place(kernels={}), "kernels.paged_decode_attention.gather", "absent.*compile build"),
        (Place(max_model_len=4096), "shapes.max_model_len", "--max-model-len 4096"),
        (Place(max_rows=8), "shapes.max_rows", "--batch 8"),
    ],
)
def test_what_it_was_not_made_for_is_named_with_the_command(
    folder: Path, place: Place, field: str, mend: str
) -> None:
    manifest = open_artifact(folder).manifest
    with pytest.raises(ArtifactMismatch, match=f"{field}.*{mend}"):
        require(manifest, place)


def test_what_it_was_made_for_is_let_in(folder: Path) -> None:
    manifest = open_artifact(folder).manifest
    place = Place(
        arch="trn1", cores=2, packages=SDK.packages, kernels=KERNELS, model="cd" * 32, max_model_len=1024,
        max_rows=1,
    )  # fmt: skip
    require(manifest, place)
    require(manifest, Place())


def test_every_input_changes_the_key(folder: Path) -> None:
    """Of what the graphs and weights were made from, and of nothing that came out."""
    whole = open_artifact(folder).manifest

    def key(manifest: Manifest, **changes: Any) -> str:
        return rewrite(folder, msgspec.structs.replace(manifest, **changes)).key

    replace = msgspec.structs.replace
    changed = {
        key(whole, model=replace(whole.model, sha256="00" * 32)),
        key(whole, target=replace(whole.target, tp=1)),
        key(whole, shapes=replace(whole.shapes, num_blocks=65)),
        key(whole, shapes=replace(whole.shapes, quantisation="int8")),
        key(whole, buckets=whole.buckets[:1]),
        key(whole, states=()),
    }
    assert len(changed | {whole.key}) == 7
    assert key(whole, outcrop="9", checkpoint=()) == whole.key
    renamed = replace(whole.model, name="elsewhere")
    assert key(whole, model=renamed) == whole.key


def test_slot_mode_is_one_block_a_sequence(folder: Path) -> None:
    manifest = open_artifact(folder).manifest
    assert not manifest.shapes.slot_mode
    shapes = msgspec.structs.replace(manifest.shapes, block_size=1024, guesses=3)
    slots = msgspec.structs.replace(manifest, shapes=shapes)
    assert slots.shapes.slot_mode
    command = slots.build_command()
    assert "--slots" in command
    assert "--block-size" not in command
    assert "--speculative-tokens 3" in command


def test_a_kernel_is_known_by_the_bytes_of_all_that_it_is_made_of(tmp_path: Path) -> None:
    """Its own file, and those beside it that it imports; not others."""
    package = "from outcrop_kernels.nki."
    (tmp_path / "decode.py").write_text(
        f"{package}tokens import load\n{package}simulator.memory import Tensor"
    )
    (tmp_path / "tokens.py").write_text(f"{package}language import nl")
    (tmp_path / "language.py").write_text("import nki.language as nl")
    (tmp_path / "topk.py").write_text(f"{package}language import nl")
    digests = {source_digest(tmp_path / "decode.py")}
    for changed in ("topk.py", "language.py", "tokens.py", "decode.py"):
        with (tmp_path / changed).open("a") as file:
            file.write("\n# changed")
        digests.add(source_digest(tmp_path / "decode.py"))
    assert len(digests) == 4


def test_kernels_have_their_names_and_how_they_address_memory() -> None:
    names = kernel_names({"rope", "kv_cache_write"}, gather=True)
    assert names == ("kv_cache_write.gather", "rope.gather")
    assert built_with(names) == (("kv_cache_write", "rope"), True)
    assert built_with(kernel_names({"rope"}, gather=False)) == (("rope",), False)
    found = kernel_digests([*names, "a_kernel_of_another_version"])
    assert list(found) == list(names)
    assert found["rope.gather"] == kernel_digests(["rope"])["rope"]
