"""Imported models as this server serves them."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from outcrop.catalog.catalog import Catalog
from outcrop.catalog.model import ServedModel
from outcrop.ledger.resource import Resource
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
    """Those in the catalog, with what has to be done when one comes or goes."""

    def __init__(self, catalog: Catalog, metrics: Metrics, load: LoadModel) -> None:
        self._catalog = catalog
        self._metrics = metrics
        self._load = load
        self._models: dict[str, ServedModel] = {}

    async def serve(self, resource: Resource) -> None:
        """Let the catalog have a model. One that cannot be loaded is logged: its files are gone."""
        files = ModelFiles(Path(resource.body["path"]), resource.id, resource.name, resource.arn)
        try:
            model = await asyncio.to_thread(self._load, files)
        except (ValueError, OSError) as error:
            logger.error("imported model %s cannot be served: %s", resource.arn, error)
            return
        self._models[resource.id] = model
        self._catalog.add(model)
        self._metrics.add_engine(model.id, model.engine)

    async def remove(self, resource: Resource) -> None:
        """Serve it no more; its engine ends, and what was copied for it goes."""
        model = self._models.pop(resource.id, None)
        if model is not None:
            self._catalog.remove(model)
            self._metrics.remove_engine(model.id)
            await model.engine.close()
        if resource.body["copied"]:
            await asyncio.to_thread(shutil.rmtree, resource.body["path"], ignore_errors=True)

    async def close(self) -> None:
        await asyncio.gather(*(model.engine.close() for model in self._models.values()))
