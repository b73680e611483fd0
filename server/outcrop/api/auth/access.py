"""Which action of a policy each operation is, and on what."""

from __future__ import annotations

import contextlib

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api.auth.bearer import ACCOUNT
from outcrop.api.auth.middleware import PUBLIC_PATHS
from outcrop.api.auth.principal import principal_of
from outcrop.catalog import identifiers
from outcrop.catalog.catalog import Catalog, UnknownModel
from outcrop.catalog.model import ServedModel

_ACTIONS = {
    "Converse": "bedrock:InvokeModel",
    "ConverseStream": "bedrock:InvokeModelWithResponseStream",
    "metrics": "outcrop:ReadMetrics",
    "openapi": "outcrop:DescribeApi",
    "inspect": "outcrop:InspectRequests",
    "listModels": "bedrock:ListFoundationModels",
    "retrieveModel": "bedrock:GetFoundationModel",
}
"""Operations that are not called as their action is; the rest are `bedrock:` and their name."""

_MODEL_IN_BODY = frozenset(
    ("createCompletion", "createChatCompletion", "createResponse", "createMessage", "countMessageTokens")
)
"""Operations that read their body to learn which model they are about, and then authorize their caller."""


def guarded(route: Route, catalog: Catalog) -> Route:
    """The route, answering only whose policy allows it; a public one, and one that asks itself, as it is."""
    if route.path in PUBLIC_PATHS or route.name in _MODEL_IN_BODY:
        return route
    action = _ACTIONS.get(route.name, f"bedrock:{route.name}")
    endpoint = route.endpoint

    async def answer(request: Request) -> Response:
        model, guardrail = (request.path_params.get(name) for name in ("model_id", "guardrailIdentifier"))
        resources = [] if model is None else model_arns(model, catalog)
        if guardrail is not None:
            resources.append(guardrail_arn(guardrail, catalog))
        principal_of(request.scope).authorize(action, *resources)
        response: Response = await endpoint(request)
        return response

    return Route(route.path, answer, methods=list(route.methods or ()), name=route.name)


def authorized_model(request: Request, name: str, action: str, catalog: Catalog) -> ServedModel:
    """The model that a request's body names. Raises AccessDeniedException where the caller may not do
    `action` with it, then UnknownModel."""
    principal_of(request.scope).authorize(action, *model_arns(name, catalog))
    return catalog.resolve(name)


def guardrail_arn(identifier: str, catalog: Catalog) -> str:
    """The ARN of a guardrail that is named by it or by its id."""
    if identifier.startswith("arn:"):
        return identifier
    return f"arn:aws:bedrock:{catalog.region}:{ACCOUNT}:guardrail/{identifier}"


def model_arns(identifier: str, catalog: Catalog) -> list[str]:
    """Every ARN that `identifier` stands for: the model's own and, where they differ, those of the name it is
    called by. So a policy may speak of either, and nobody gets around a deny by another name."""
    name = identifiers.resource_name(identifier)
    base = identifiers.without_geography(name)
    names = [catalog.arn(base)]
    if identifier != name:
        names.append(identifier)
    elif base != name:
        names.append(f"arn:aws:bedrock:{catalog.region}:{ACCOUNT}:inference-profile/{name}")
    with contextlib.suppress(UnknownModel):  # the route says so, to those who may ask
        names.append(catalog.arn_of(catalog.resolve(identifier)))
    return list(dict.fromkeys(names))
