"""The models of this server, found by any identifier a Bedrock client may use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from outcrop.catalog import identifiers
from outcrop.catalog.bedrock_models import LLAMA_TEXT_MODELS, FoundationModel
from outcrop.catalog.model import ServedModel
from outcrop.catalog.prompt_router import PromptRouter
from outcrop.catalog.reservation import Reservation
from outcrop.engine.client import EngineUnavailable

logger = logging.getLogger(__name__)


class UnknownModel(LookupError):
    """No model of this server answers to the identifier."""


class Catalog:
    """Identifiers to models.

    Explicit mode: a model answers to its id, its aliases, ARNs whose last part is one of those, and
    cross-region profile ids (`us.` + id). Demo mode: the one model answers to every identifier that the
    service would accept, so that an application keeps the id it was written with.
    """

    def __init__(
        self, models: Sequence[ServedModel], *, demo: bool = False, region: str = "us-east-1"
    ) -> None:
        """`region` is the one that ARNs in answers name. Raises ValueError on no model, on a name given to
        two models, and on a demo of more than one."""
        if not models:
            raise ValueError("a catalog needs at least one model")
        if demo and len(models) > 1:
            raise ValueError("demo mode serves one model under every id; several need explicit ids")
        self.models = tuple(models)
        self.demo = demo
        self.region = region
        self._by_name: dict[str, ServedModel] = {}
        self.routers: dict[str, PromptRouter] = {}  # by the last part of their ARNs
        self._reserved: dict[str, ServedModel] = {}  # by the last part of a Provisioned Throughput's ARN
        self._links: dict[str, str] = {}
        self._failures: dict[str, str] = {}
        for model in self.models:
            for name in (model.id, *model.aliases):
                if self._by_name.setdefault(name, model) is not model:
                    raise ValueError(f"two models are named {name!r}; ids and aliases must be distinct")

    def resolve(self, identifier: str) -> ServedModel:
        """The model that answers to `identifier`. Raises UnknownModel."""
        name = identifiers.resource_name(identifier)
        for candidate in (identifier, name, identifiers.without_geography(name)):
            if candidate in self._by_name:
                return self._by_name[candidate]
        if name in self._links:
            return self.resolve(self._links[name])
        if self.demo and identifiers.is_valid(identifier):
            return self.models[0]
        raise UnknownModel(identifier)

    def add(self, model: ServedModel) -> None:
        """Let a model be found by its id and its ARN. It is not among `models`, whose engines the catalog
        starts and closes."""
        self._by_name[model.id] = model

    def remove(self, model: ServedModel) -> None:
        """Take back what `add` did."""
        self._by_name.pop(model.id, None)

    def link(self, name: str, identifier: str) -> None:
        """Let `name`, such as the id of an application's inference profile, stand for another identifier."""
        self._links[name] = identifier

    def unlink(self, name: str) -> None:
        """Take a link back; there need not be one."""
        self._links.pop(name, None)

    def reserve(self, name: str, identifier: str, units: int) -> None:
        """Let `name` stand for a model, with places of its own, unless it does so already. Raises
        UnknownModel."""
        if name in self._reserved:
            return
        model = self.resolve(identifier).reserved(Reservation(units))
        self._by_name[name] = self._reserved[name] = model

    def release(self, name: str) -> None:
        """Take a reservation back; there need not be one."""
        if self._reserved.pop(name, None) is not None:
            del self._by_name[name]

    @property
    def reserved_units(self) -> int:
        """Of all models together."""
        return self._units(self._reserved.values())

    def reserved_units_of(self, model: ServedModel) -> int:
        return self._units(each for each in self._reserved.values() if each.id == model.id)

    @staticmethod
    def _units(models: Iterable[ServedModel]) -> int:
        return sum(each.reservation.units for each in models if each.reservation is not None)

    def router(self, identifier: str) -> PromptRouter | None:
        """The prompt router that an ARN names, if it names one."""
        name = identifiers.resource_name(identifier)
        return None if name == identifier else self.routers.get(name)

    def foundation_models(self) -> list[FoundationModel]:
        """What ListFoundationModels shows: the served models, and in demo mode the known Llama ids too."""
        listed = {model.id: model.listing for model in self.models}
        if self.demo:
            listed = {known.model_id: known for known in LLAMA_TEXT_MODELS} | listed
        return list(listed.values())

    def foundation_model(self, identifier: str) -> FoundationModel:
        """One entry of the list. Raises UnknownModel."""
        name = identifiers.without_geography(identifiers.resource_name(identifier))
        for listed in self.foundation_models():
            if listed.model_id == name:
                return listed
        model = self.resolve(identifier)
        return FoundationModel(name, model.name or model.id, model.provider) if self.demo else model.listing

    def arn(self, model_id: str) -> str:
        """The ARN that answers give a model of this server."""
        return f"arn:aws:bedrock:{self.region}::foundation-model/{model_id}"

    def arn_of(self, model: ServedModel) -> str:
        """Its own, or the one of a foundation model."""
        return model.arn or self.arn(model.id)

    async def start(self) -> None:
        """Start every engine, side by side. An engine that fails to start stays down; `failure` says why."""
        await asyncio.gather(*(self._start(model) for model in self.models))

    async def _start(self, model: ServedModel) -> None:
        try:
            await model.engine.start()
        except EngineUnavailable as exc:
            logger.debug("model %s did not start: %s", model.id, exc)  # `failure` tells those who ask
            self._failures[model.id] = str(exc)
        except Exception as exc:
            logger.exception("model %s did not start", model.id)
            self._failures[model.id] = f"{type(exc).__name__}: {exc}"
        else:
            logger.info("model %s is ready", model.id)

    async def close(self) -> None:
        """Stop every engine; one that cannot be stopped is logged."""
        closings = (model.engine.close() for model in self.models)
        for outcome in await asyncio.gather(*closings, return_exceptions=True):
            if isinstance(outcome, BaseException):
                logger.error("an engine did not close", exc_info=outcome)

    def failure(self, model: ServedModel) -> str | None:
        """Why the model's engine did not start or will not again; None if it is up or may yet be."""
        return self._failures.get(model.id) or model.engine.drained or None

    @property
    def ready(self) -> bool:
        """True while every model answers."""
        return all(model.engine.ready for model in self.models)

    @property
    def most_replicas(self) -> int:
        """Replicas that are ready, of the model that has most of them; at least 1."""
        return max(1, *(_ready_replicas(model) for model in self.models))

    def states(self, *, explain: bool = True) -> dict[str, str]:
        """Model id to "ready" (or how many of its replicas are, which is enough to answer), "not ready"
        (starting or restarting), or "failed", with the reason if it is
        to be explained."""
        return {model.id: self._state(model, explain) for model in self.models}

    def _state(self, model: ServedModel, explain: bool) -> str:
        if model.engine.ready:
            ready, count = _ready_replicas(model), len(model.engine.replicas)
            return "ready" if ready == count else f"ready: {ready} of {count} replicas"
        failure = self.failure(model)
        if failure is None:
            return "not ready"
        return f"failed: {failure}" if explain else "failed"


def _ready_replicas(model: ServedModel) -> int:
    return sum(replica.ready for replica in model.engine.replicas)
