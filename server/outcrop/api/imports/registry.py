"""Imported models as this server serves them."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from outcrop.api.bedrock.followed import Follower
from outcrop.api.imports import checkpoint_files, shapes
from outcrop.catalog.catalog import Catalog
from outcrop.catalog.model import ServedModel
from outcrop.ledger.resource import Resource
from outcrop.storage import Storage, StorageError
from outcrop.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model on this machine. model_id: the last part of its ARN."""

    path: Path
    model_id: str
    name: str
    arn: str


LoadModel = Callable[[ModelFiles], ServedModel]
"""A model with its tokenizer and an engine that starts when it is first asked. Blocks. Raises ValueError and
OSError."""


class ImportedModels:
    """Those in the catalog, with what has to be done when one comes or goes. Each server on a database serves
    all of them, from a copy of its own where the one that imported a model cannot be reached."""

    def __init__(
        self, catalog: Catalog, metrics: Metrics, load: LoadModel, storage: Storage, folder: Path
    ) -> None:
        """storage: where copies are made from. folder: a copy is in a folder in it."""
        self._catalog = catalog
        self._metrics = metrics
        self._load = load
        self._storage = storage
        self._folder = folder
        self._models: dict[str, ServedModel] = {}
        self._coming: dict[str, asyncio.Task[None]] = {}

    def follower(self) -> Follower:
        """Serves what this server or another has imported, and ends what either has deleted."""
        return Follower(shapes.MODEL, self._appeared, self._gone)

    async def _appeared(self, resource: Resource) -> None:
        """Let the catalog have a model, unless it has it already: at once where its files are here, and when
        they are where they have to be copied. One that cannot be loaded is logged: its files are gone."""
        if resource.id in self._models or resource.id in self._coming:
            return
        coming = self._coming[resource.id] = asyncio.create_task(self._serve(resource))
        if self._path(resource).is_dir():
            await asyncio.wait([coming])

    async def _serve(self, resource: Resource) -> None:
        try:
            model = await asyncio.to_thread(self._loaded, resource)
        except (ValueError, OSError, StorageError) as error:
            logger.error("imported model %s cannot be served: %s", resource.arn, error)
            return
        finally:
            del self._coming[resource.id]
        self._models[resource.id] = model
        self._catalog.add(model)
        self._metrics.add_engine(model.id, model.engine)

    def _path(self, resource: Resource) -> Path:
        """Where the model's files are, or are to be, on this machine."""
        path = Path(resource.body["path"])
        return path if path.is_dir() or not resource.body["copied"] else self._folder / resource.id

    def _loaded(self, resource: Resource) -> ServedModel:
        """Blocks. Raises ValueError, OSError and StorageError."""
        path = self._path(resource)
        if resource.body["copied"] and not path.is_dir():
            uri = shapes.source_uri({"modelDataSource": resource.body["source"]})
            logger.info("imported model %s: copying it from %s", resource.arn, uri)
            checkpoint_files.fetch(self._storage, uri, path)
        return self._load(ModelFiles(path, resource.id, resource.name, resource.arn))

    async def _gone(self, model_id: str) -> None:
        """Serve it no more; its engine ends, and what was copied for it goes."""
        if coming := self._coming.get(model_id):
            await asyncio.wait([coming])
        model = self._models.pop(model_id, None)
        if model is not None:
            self._catalog.remove(model)
            self._metrics.remove_engine(model.id)
            await model.engine.close()
        await asyncio.to_thread(shutil.rmtree, self._folder / model_id, ignore_errors=True)

    async def close(self) -> None:
        for coming in self._coming.values():
            coming.cancel()
        await asyncio.gather(*(model.engine.close() for model in self._models.values()))
