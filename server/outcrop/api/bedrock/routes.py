"""Routes of the `bedrock` service."""

from __future__ import annotations

from sqlalchemy.orm import Session
from starlette.routing import Route

from outcrop.api.bedrock.foundation_models import FoundationModels
from outcrop.api.bedrock.inference_profiles import InferenceProfiles
from outcrop.api.bedrock.plane import ControlPlane
from outcrop.api.bedrock.tagging import Tagging


class Bedrock:
    """The operations that are offered; those that are not are in `not_offered`."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._profiles = InferenceProfiles(plane)
        self._parts = (FoundationModels(plane.catalog), self._profiles, Tagging(plane))

    def routes(self) -> list[Route]:
        return [route for part in self._parts for route in part.routes()]

    async def start(self) -> None:
        """Take up what the state has. Raises DatabaseError."""
        await self._plane.run(self._load)

    def _load(self, session: Session) -> None:
        self._profiles.load(session)
