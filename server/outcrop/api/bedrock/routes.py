"""Routes of the `bedrock` service: which foundation models this server offers."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors
from outcrop.api.path_label import LABEL
from outcrop.api.responses import json_response
from outcrop.api.smithy import Constraints
from outcrop.catalog import identifiers
from outcrop.catalog.bedrock_models import FoundationModel
from outcrop.catalog.catalog import Catalog, UnknownModel

_PROVIDER = re.compile(r"[A-Za-z0-9- ]{1,63}")
_MODALITIES = ("TEXT", "IMAGE", "EMBEDDING")
_INFERENCE_TYPES = ("ON_DEMAND", "PROVISIONED")
_CUSTOMIZATIONS = ("FINE_TUNING", "CONTINUED_PRE_TRAINING", "DISTILLATION")


class Bedrock:
    """ListFoundationModels and GetFoundationModel on one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def routes(self) -> list[Route]:
        return [
            Route("/foundation-models", self._list, methods=["GET"], name="ListFoundationModels"),
            Route(
                f"/foundation-models/{{model_id:{LABEL}}}",
                self._get,
                methods=["GET"],
                name="GetFoundationModel",
            ),
        ]

    async def _list(self, request: Request) -> Response:
        query = request.query_params
        provider = query.get("byProvider")
        constraints = Constraints()
        constraints.matches("byProvider", provider, _PROVIDER)
        constraints.one_of("byOutputModality", query.get("byOutputModality"), _MODALITIES)
        constraints.one_of("byInferenceType", query.get("byInferenceType"), _INFERENCE_TYPES)
        constraints.one_of("byCustomizationType", query.get("byCustomizationType"), _CUSTOMIZATIONS)
        constraints.raise_if_violated()
        # Every model here is text, on demand and not to be customized.
        offered = (
            query.get("byOutputModality") in (None, "TEXT")
            and query.get("byInferenceType") in (None, "ON_DEMAND")
            and query.get("byCustomizationType") is None
        )
        models = self._catalog.foundation_models() if offered else []
        summaries = [
            self._details(model)
            for model in models
            if provider is None or provider.lower() == model.provider.lower()
        ]
        return json_response({"modelSummaries": summaries})

    async def _get(self, request: Request) -> Response:
        identifier = request.path_params["model_id"]
        try:
            model = self._catalog.foundation_model(identifier)
        except UnknownModel:
            if identifiers.is_valid(identifier):
                raise errors.foundation_model_not_found() from None
            raise errors.invalid_model_identifier() from None
        return json_response({"modelDetails": self._details(model)})

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
