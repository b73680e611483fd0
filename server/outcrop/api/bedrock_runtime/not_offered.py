"""Operations of the service that need what this server does not have: models that judge, and two-way
invocations.
Each answers an error that the operation declares, so that clients know it for what it is."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors
from outcrop.api.path_label import LABEL
from outcrop.catalog.catalog import Catalog, UnknownModel


class NotOffered:
    """Their routes."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def routes(self) -> list[Route]:
        return [
            Route(path, endpoint, methods=[method], name=name)
            for name, (method, path, endpoint) in {
                "InvokeModelWithBidirectionalStream": (
                    "POST",
                    f"/model/{{model_id:{LABEL}}}/invoke-with-bidirectional-stream",
                    self._bidirectional,
                ),
                "InvokeGuardrailChecks": ("POST", "/guardrail-checks/invoke", self._guardrail_checks),
            }.items()
        ]

    async def _bidirectional(self, request: Request) -> Response:
        """Answers at once: the client goes on sending until it hears something, and its body does not end."""
        try:
            self._catalog.resolve(request.path_params["model_id"])
        except UnknownModel:
            return errors.invalid_model_identifier().response()
        return errors.no_bidirectional_stream().response()

    async def _guardrail_checks(self, request: Request) -> Response:
        raise errors.unsupported_operation("InvokeGuardrailChecks")
