"""Routes of the `bedrock` service."""

from __future__ import annotations

from sqlalchemy.orm import Session
from starlette.routing import Route

from outcrop.api.batch.routes import InvocationJobs
from outcrop.api.batch.runner import BatchRunner
from outcrop.api.bedrock.foundation_models import FoundationModels
from outcrop.api.bedrock.inference_profiles import InferenceProfiles
from outcrop.api.bedrock.plane import ControlPlane
from outcrop.api.bedrock.tagging import Tagging
from outcrop.storage import Storage


class Bedrock:
    """The operations that are offered; those that are not are in `not_offered`."""

    def __init__(self, plane: ControlPlane, storage: Storage, batch: BatchRunner) -> None:
        self._plane = plane
        self._batch = batch
        self._profiles = InferenceProfiles(plane)
        self._parts = (
            FoundationModels(plane.catalog),
            self._profiles,
            Tagging(plane),
            InvocationJobs(plane, storage, batch),
        )

    def routes(self) -> list[Route]:
        return [route for part in self._parts for route in part.routes()]

    async def start(self) -> None:
        """Take up what the state has. Raises DatabaseError."""
        await self._plane.run(self._load)
        self._batch.start()

    async def close(self) -> None:
        """Interrupt what is worked on; it goes on with the next start."""
        await self._batch.close()

    def _load(self, session: Session) -> None:
        self._profiles.load(session)
