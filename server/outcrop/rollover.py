"""A changed configuration, or changed weights, taken into service while the server runs (SIGHUP)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from outcrop.catalog.model import ServedModel
from outcrop.engine.client import EngineUnavailable
from outcrop.engine.config import EngineConfig
from outcrop.engine.replicas import ReplicaSet
from outcrop.replica_configs import exclude_each_other
from outcrop.settings import ModelSettings, Settings
from outcrop.text.chat_template import load_chat_template
from outcrop.text.tokenizer import Tokenizer, load_tokenizer

logger = logging.getLogger(__name__)

_SAMPLE = "Übung macht 2 masters: naïve façades, 1234567 \n\n\tdef f(x):  return x**2 # 你好 🙂"
_ROUTED = ("id", "aliases", "name", "replicas")
"""Settings of a model that its engines know nothing of."""

Configure = Callable[[ModelSettings], Sequence[EngineConfig]]
"""What each replica of a model is told; slow. Raises ValueError and OSError."""


class Rollover:
    """Replaces the engines of the models whose settings or files have changed since they were started, by
    `ReplicaSet.update`. What cannot be changed in a running server is told in the log and left as it is.

    The new weights must come with the vocabulary and the chat template that are served: prompts are tokenized
    before it is known which replica they go to.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        configure: Configure,
        engines: Sequence[ReplicaSet],
        models: Sequence[ServedModel],
    ) -> None:
        """settings: what runs. load: reads them again; raises SettingsError. models: of `engines`."""
        self._settings = settings
        self._load = load
        self._configure = configure
        self._engines = engines
        self._models = models
        self._files = [_files(model) for model in settings.models]
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Once over all models; those that are asked for meanwhile wait for each other."""
        async with self._lock:
            try:
                wanted = await asyncio.to_thread(self._load)
            except ValueError as error:
                logger.error("the configuration is not taken over: %s", error)
                return
            for line in _left_alone(self._settings, wanted):
                logger.warning("%s", line)
            by_id = {model.id: model for model in wanted.models}
            for index, model in enumerate(self._settings.models):
                if (new := by_id.get(model.id)) is not None:
                    await self._update(index, new)

    async def _update(self, index: int, wanted: ModelSettings) -> None:
        served, engine = self._models[index], self._engines[index]
        count = self._settings.models[index].replicas
        try:
            # The number of replicas is that of the server's start.
            configs = await asyncio.to_thread(self._configure, wanted.model_copy(update={"replicas": count}))
            files = await asyncio.to_thread(_files, wanted)
            if list(configs) == engine.configs and files == self._files[index]:
                logger.info("%s: nothing has changed", served.id)
                return
            if difference := await asyncio.to_thread(_difference, served, wanted):
                raise ValueError(
                    f"{wanted.path} has another {difference} than what is served; serve it under an id of "
                    "its own, or start the server anew"
                )
            logger.info("%s: replacing %d replicas", served.id, count)
            await engine.update(configs, in_place=exclude_each_other(engine.configs, configs))
        except (EngineUnavailable, ValueError, OSError) as error:
            logger.error("%s is not updated: %s", served.id, error)
        else:
            self._files[index] = files
            logger.info("%s is updated", served.id)


def _left_alone(running: Settings, wanted: Settings) -> Iterator[str]:
    """What has changed and takes a new start."""
    for name in type(running).model_fields:
        if name != "models" and getattr(running, name) != getattr(wanted, name):
            yield f"{name} has changed: that takes a new start of the server"
    before = {model.id: model for model in running.models}
    after = {model.id: model for model in wanted.models}
    for model_id in before.keys() ^ after.keys():
        yield f"model {model_id} was added, removed or renamed: that takes a new start of the server"
    for model_id in before.keys() & after.keys():
        for name in _ROUTED:
            if getattr(before[model_id], name) != getattr(after[model_id], name):
                yield f"{name} of model {model_id} has changed: that takes a new start of the server"


def _files(model: ModelSettings) -> tuple[Any, ...]:
    """Changes when the files of a model do."""
    found = []
    for top in filter(None, (model.path, model.artifact)):
        real = top.resolve()
        for path in [real, *sorted(real.rglob("*"))] if real.is_dir() else [real]:
            status = path.stat()
            found.append((str(path), status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _difference(served: ServedModel, wanted: ModelSettings) -> str:
    """What new weights would make of texts that the served ones do not; "" if nothing. Raises ValueError."""
    tokenizer = load_tokenizer(wanted.path)
    if _vocabulary(tokenizer) != _vocabulary(served.tokenizer):
        return "vocabulary"
    load_chat_template(wanted.path, tokenizer)  # that it can be used at all
    return "chat template" if tokenizer.chat_template != served.tokenizer.chat_template else ""


def _vocabulary(tokenizer: Tokenizer) -> tuple[Any, ...]:
    return (
        tokenizer.vocab_size, dict(tokenizer.special_tokens), tokenizer.bos_id, tokenizer.eos_ids,
        tokenizer.encode(_SAMPLE), [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)],
    )  # fmt: skip
