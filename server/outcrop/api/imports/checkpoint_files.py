"""The files of a model to import: where they come from, and whether they are a model. Everything blocks."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from outcrop.storage import Place, Storage, below, explained
from outcrop.text.chat_template import ChatTemplateError, load_chat_template
from outcrop.text.tokenizer import load_tokenizer
from outcrop_compile.checkpoint import open_checkpoint

logger = logging.getLogger(__name__)

_SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".txt")
"""Of the files that a checkpoint in Hugging Face's layout has, less weights in pickles."""

_LOGGED_PERCENT = 10
_SPARE = 1 << 30
"""Bytes of the disk that an import leaves free."""


class NoModel(ValueError):
    """The files are no model that this server can serve; the message says what is wrong with them."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """architecture: as config.json names it. is_instruct: whether it has a chat template."""

    architecture: str
    is_instruct: bool


def fetch(storage: Storage, uri: str, folder: Path) -> Path:
    """Where the files are on this machine: a folder is served from where it is, S3 is copied into `folder`.
    Raises StorageError and NoModel."""
    if not uri.startswith("s3://"):
        return storage.path(uri)
    with explained(uri):
        place, name = storage.open(uri)
        base = below(name, "")
        sizes = _sizes(place, base)
        _require_weights(uri, list(sizes))
        _require_space(folder, sum(sizes.values()))
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        part.mkdir(parents=True)
        _copy(place, base, sizes, part, uri)
        part.rename(folder)
    return folder


def check(uri: str, folder: Path) -> ModelFacts:
    """What the model is. Raises NoModel."""
    if not folder.is_dir():
        raise NoModel(f"{uri}: there is no such folder.")
    names = [path.name for path in folder.iterdir()]
    _require_weights(uri, names)
    try:
        checkpoint = open_checkpoint(folder)
        tokenizer = load_tokenizer(folder)
    except (ValueError, OSError) as error:
        raise NoModel(str(error).replace(str(folder), uri)) from None
    if tokenizer.vocab_size > checkpoint.config.vocab_size:
        raise NoModel(
            f"{uri}: the tokenizer has {tokenizer.vocab_size} tokens and the model "
            f"{checkpoint.config.vocab_size}; they do not belong together."
        )
    try:
        load_chat_template(folder, tokenizer)
    except ChatTemplateError:
        return ModelFacts("llama", is_instruct=False)
    return ModelFacts("llama", is_instruct=True)


def _sizes(place: Place, base: str) -> dict[str, int]:
    """Files beside each other, by name; what is in folders below is none of a checkpoint's."""
    found: dict[str, int] = {}
    for name in place.names(base):
        short = name.removeprefix(base)
        if "/" not in short and short.endswith(_SUFFIXES):
            found[short] = place.size(name) or 0
    return found


def _require_weights(uri: str, names: list[str]) -> None:
    if "config.json" not in names:
        raise NoModel(f"{uri} has no config.json: give the folder of a checkpoint in Hugging Face's layout.")
    if not any(name.endswith(".safetensors") for name in names):
        raise NoModel(f"{uri} has no .safetensors file: weights in another format have to be converted.")
    if not {"tokenizer.json", "tokenizer.model"} & set(names):
        raise NoModel(f"{uri} has no tokenizer.json or tokenizer.model.")


def _require_space(folder: Path, needed: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < needed + _SPARE:
        raise NoModel(
            f"The model has {needed >> 20} MiB, and {folder.parent} has {free >> 20} MiB left. "
            "Free some, or set storage.models to a folder on another disk."
        )


def _copy(place: Place, base: str, sizes: dict[str, int], folder: Path, uri: str) -> None:
    total, done, logged = sum(sizes.values()), 0, 0
    for name in sizes:
        with (folder / name).open("wb") as out:
            for piece in place.read(base + name):
                out.write(piece)
                done += len(piece)
                percent = 100 * done // max(total, 1)
                if percent >= logged + _LOGGED_PERCENT:
                    logged = percent
                    logger.info("import of %s: %d of %d MiB (%d %%)", uri, done >> 20, total >> 20, percent)
