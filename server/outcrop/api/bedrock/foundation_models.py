"""Which foundation models this server offers."""

from __future__ import annotations

import re
from typing import Annotated

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors
from outcrop.api.bedrock.parameters import read_parameters
from outcrop.api.path_label import LABEL
from outcrop.api.responses import json_response
from outcrop.api.shapes import Must, Shape
from outcrop.catalog import identifiers
from outcrop.catalog.bedrock_models import FoundationModel
from outcrop.catalog.catalog import Catalog, UnknownModel

_PROVIDER = Must(pattern=re.compile(r"[A-Za-z0-9- ]{1,63}"))
_MODEL_ID = Must(
    size=(0, 140),
    pattern=re.compile(
        r"[a-z0-9-]{1,63}[.]{1}[a-z0-9-]{1,63}([a-z0-9-]{1,63}[.]){0,2}[a-z0-9-]{1,63}"
        r"([:][a-z0-9-]{1,63}){0,2}(/[a-z0-9]{12}|)"
    ),
)


class ListFoundationModelsRequest(Shape):
    by_provider: Annotated[str | None, _PROVIDER] = None
    by_customization_type: Annotated[
        str | None, Must(one_of=("FINE_TUNING", "CONTINUED_PRE_TRAINING", "DISTILLATION"))
    ] = None
    by_output_modality: Annotated[str | None, Must(one_of=("TEXT", "IMAGE", "EMBEDDING"))] = None
    by_inference_type: Annotated[str | None, Must(one_of=("ON_DEMAND", "PROVISIONED"))] = None


class _Identified(Shape):
    model_id: Annotated[str | None, _MODEL_ID] = None


class FoundationModels:
    """ListFoundationModels, GetFoundationModel and GetFoundationModelAvailability on one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def routes(self) -> list[Route]:
        one = f"{{model_id:{LABEL}}}"
        return [
            Route("/foundation-models", self._list, methods=["GET"], name="ListFoundationModels"),
            Route(f"/foundation-models/{one}", self._get, methods=["GET"], name="GetFoundationModel"),
            Route(
                f"/foundation-model-availability/{one}",
                self._availability,
                methods=["GET"],
                name="GetFoundationModelAvailability",
            ),
        ]

    async def _list(self, request: Request) -> Response:
        query = read_parameters(request, ListFoundationModelsRequest)
        # Every model here is text, on demand and not to be customized.
        offered = (
            query.by_output_modality in (None, "TEXT")
            and query.by_inference_type in (None, "ON_DEMAND")
            and query.by_customization_type is None
        )
        models = self._catalog.foundation_models() if offered else []
        provider = query.by_provider
        summaries = [
            self._details(model)
            for model in models
            if provider is None or provider.lower() == model.provider.lower()
        ]
        return json_response({"modelSummaries": summaries})

    async def _get(self, request: Request) -> Response:
        return json_response({"modelDetails": self._details(self._model(request.path_params["model_id"]))})

    async def _availability(self, request: Request) -> Response:
        read_parameters(request, _Identified, {"modelId": "model_id"})
        model = self._model(request.path_params["model_id"])
        return json_response(
            {
                "modelId": model.model_id,
                "agreementAvailability": {"status": "AVAILABLE"},
                "authorizationStatus": "AUTHORIZED",
                "entitlementAvailability": "AVAILABLE",
                "regionAvailability": "AVAILABLE",
            }
        )

    def _model(self, identifier: str) -> FoundationModel:
        """Raises ResourceNotFoundException or ValidationException."""
        try:
            return self._catalog.foundation_model(identifier)
        except UnknownModel:
            if identifiers.is_valid(identifier):
                raise errors.foundation_model_not_found() from None
            raise errors.invalid_model_identifier() from None

    def _details(self, model: FoundationModel) -> dict[str, object]:
        return {
            "modelArn": self._catalog.arn(model.model_id),
            "modelId": model.model_id,
            "modelName": model.name,
            "providerName": model.provider,
            "inputModalities": ["TEXT"],
            "outputModalities": ["TEXT"],
            "responseStreamingSupported": True,
            "customizationsSupported": [],
            "inferenceTypesSupported": ["ON_DEMAND"],
            "modelLifecycle": {"status": "ACTIVE"},
        }
