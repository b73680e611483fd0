"""Routes for operators: liveness, readiness and metrics."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api.admission import Admission
from outcrop.api.responses import json_response
from outcrop.catalog.catalog import Catalog
from outcrop.telemetry.metrics import Metrics


class Health:
    """`/health/live`, `/health/ready` and `/metrics`.

    explain: whether readiness says why a model failed. Everybody may ask for it, and a reason names paths, so
    a server that asks for credentials leaves the reasons to its log.
    """

    def __init__(self, catalog: Catalog, admission: Admission, metrics: Metrics, *, explain: bool) -> None:
        self._explain = explain
        self._catalog = catalog
        self._admission = admission
        self._metrics = metrics

    def routes(self) -> list[Route]:
        return [
            Route("/health/live", self._live, methods=["GET"], name="live"),
            Route("/health/ready", self._ready, methods=["GET"], name="ready"),
            Route("/metrics", self._render_metrics, methods=["GET"], name="metrics"),
        ]

    async def _live(self, request: Request) -> Response:
        """200 as long as the process answers at all."""
        return json_response({"status": "live"})

    async def _ready(self, request: Request) -> Response:
        """200 while every model answers, by one replica at least, and the server is to stay; else 503, with
        each model's state."""
        status = "ready" if self._catalog.ready else "not ready"
        if self._admission.leaving:
            status = "draining"
        return json_response(
            {"status": status, "models": self._catalog.states(explain=self._explain)},
            status=200 if status == "ready" else 503,
        )

    async def _render_metrics(self, request: Request) -> Response:
        await self._metrics.refreshed()
        body, content_type = self._metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})
