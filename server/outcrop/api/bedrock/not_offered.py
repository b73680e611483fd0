"""Operations of the control plane that need what this server does not have, such as training,
evaluation or a marketplace. Each answers an error that the operation declares."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outcrop.api import errors
from outcrop.api.error_kind import Kind
from outcrop.api.path_label import LABEL, label_until

_POLICIES = "/automated-reasoning-policies"
_POLICY = f"{_POLICIES}/{{policyArn}}"
_BUILDS = f"{_POLICY}/build-workflows"
_BUILD = f"{_BUILDS}/{{buildWorkflowId}}"
_TEST = f"{_POLICY}/test-cases/{{testCaseId}}"
_DEPLOYMENTS = "/model-customization/custom-model-deployments"
_DEPLOYMENT = f"{_DEPLOYMENTS}/{{customModelDeploymentIdentifier}}"
_ENDPOINTS = "/marketplace-model/endpoints"
_ENDPOINT = f"{_ENDPOINTS}/{{endpointArn}}"
_PROMPT_JOBS = "/advanced-prompt-optimization-jobs"
_ENFORCED = "/enforcedGuardrailsConfiguration"

OPERATIONS = {
    "BatchDeleteAdvancedPromptOptimizationJob": "POST /advanced-prompt-optimization-job/batch-delete",
    "BatchDeleteEvaluationJob": "POST /evaluation-jobs/batch-delete",
    "CancelAutomatedReasoningPolicyBuildWorkflow": f"POST {_BUILD}/cancel",
    "CreateAdvancedPromptOptimizationJob": f"POST {_PROMPT_JOBS}",
    "CreateAutomatedReasoningPolicy": f"POST {_POLICIES}",
    "CreateAutomatedReasoningPolicyTestCase": f"POST {_POLICY}/test-cases",
    "CreateAutomatedReasoningPolicyVersion": f"POST {_POLICY}/versions",
    "CreateCustomModel": "POST /custom-models/create-custom-model",
    "CreateCustomModelDeployment": f"POST {_DEPLOYMENTS}",
    "CreateEvaluationJob": "POST /evaluation-jobs",
    "CreateFoundationModelAgreement": "POST /create-foundation-model-agreement",
    "CreateMarketplaceModelEndpoint": f"POST {_ENDPOINTS}",
    "CreateModelCopyJob": "POST /model-copy-jobs",
    "CreateModelCustomizationJob": "POST /model-customization-jobs",
    "DeleteAutomatedReasoningPolicy": f"DELETE {_POLICY}",
    "DeleteAutomatedReasoningPolicyBuildWorkflow": f"DELETE {_BUILD}",
    "DeleteAutomatedReasoningPolicyTestCase": f"DELETE {_TEST}",
    "DeleteCustomModel": "DELETE /custom-models/{modelIdentifier}",
    "DeleteCustomModelDeployment": f"DELETE {_DEPLOYMENT}",
    "DeleteEnforcedGuardrailConfiguration": f"DELETE {_ENFORCED}/{{configId}}",
    "DeleteFoundationModelAgreement": "POST /delete-foundation-model-agreement",
    "DeleteMarketplaceModelEndpoint": f"DELETE {_ENDPOINT}",
    "DeleteResourcePolicy": "DELETE /resource-policy/{resourceArn}",
    "DeregisterMarketplaceModelEndpoint": f"DELETE {_ENDPOINT}/registration",
    "ExportAutomatedReasoningPolicyVersion": f"GET {_POLICY}/export",
    "GetAccountDataRetention": "GET /data-retention",
    "GetAdvancedPromptOptimizationJob": f"GET {_PROMPT_JOBS}/{{jobIdentifier}}",
    "GetAutomatedReasoningPolicy": f"GET {_POLICY}",
    "GetAutomatedReasoningPolicyAnnotations": f"GET {_BUILD}/annotations",
    "GetAutomatedReasoningPolicyBuildWorkflow": f"GET {_BUILD}",
    "GetAutomatedReasoningPolicyBuildWorkflowResultAssets": f"GET {_BUILD}/result-assets",
    "GetAutomatedReasoningPolicyNextScenario": f"GET {_BUILD}/scenarios",
    "GetAutomatedReasoningPolicyTestCase": f"GET {_TEST}",
    "GetAutomatedReasoningPolicyTestResult": f"GET {_BUILD}/test-cases/{{testCaseId}}/test-results",
    "GetCustomModel": "GET /custom-models/{modelIdentifier}",
    "GetCustomModelDeployment": f"GET {_DEPLOYMENT}",
    "GetEvaluationJob": "GET /evaluation-jobs/{jobIdentifier}",
    "GetMarketplaceModelEndpoint": f"GET {_ENDPOINT}",
    "GetModelCopyJob": "GET /model-copy-jobs/{jobArn}",
    "GetModelCustomizationJob": "GET /model-customization-jobs/{jobIdentifier}",
    "GetResourcePolicy": "GET /resource-policy/{resourceArn}",
    "GetUseCaseForModelAccess": "GET /use-case-for-model-access",
    "ListAdvancedPromptOptimizationJobs": f"GET {_PROMPT_JOBS}",
    "ListAutomatedReasoningPolicies": f"GET {_POLICIES}",
    "ListAutomatedReasoningPolicyBuildWorkflows": f"GET {_BUILDS}",
    "ListAutomatedReasoningPolicyTestCases": f"GET {_POLICY}/test-cases",
    "ListAutomatedReasoningPolicyTestResults": f"GET {_BUILD}/test-results",
    "ListCustomModelDeployments": f"GET {_DEPLOYMENTS}",
    "ListCustomModels": "GET /custom-models",
    "ListEnforcedGuardrailsConfiguration": f"GET {_ENFORCED}",
    "ListEvaluationJobs": "GET /evaluation-jobs",
    "ListFoundationModelAgreementOffers": "GET /list-foundation-model-agreement-offers/{modelId}",
    "ListMarketplaceModelEndpoints": f"GET {_ENDPOINTS}",
    "ListModelCopyJobs": "GET /model-copy-jobs",
    "ListModelCustomizationJobs": "GET /model-customization-jobs",
    "PutAccountDataRetention": "PUT /data-retention",
    "PutEnforcedGuardrailConfiguration": f"PUT {_ENFORCED}",
    "PutResourcePolicy": "POST /resource-policy",
    "PutUseCaseForModelAccess": "POST /use-case-for-model-access",
    "RegisterMarketplaceModelEndpoint": f"POST {_ENDPOINTS}/{{endpointIdentifier}}/registration",
    "StartAutomatedReasoningPolicyBuildWorkflow": f"POST {_BUILDS}/{{buildWorkflowType}}/start",
    "StartAutomatedReasoningPolicyTestWorkflow": f"POST {_BUILD}/test-workflows",
    "StopAdvancedPromptOptimizationJob": f"POST {_PROMPT_JOBS}/{{jobIdentifier}}/stop",
    "StopEvaluationJob": "POST /evaluation-job/{jobIdentifier}/stop",
    "StopModelCustomizationJob": "POST /model-customization-jobs/{jobIdentifier}/stop",
    "UpdateAutomatedReasoningPolicy": f"PATCH {_POLICY}",
    "UpdateAutomatedReasoningPolicyAnnotations": f"PATCH {_BUILD}/annotations",
    "UpdateAutomatedReasoningPolicyTestCase": f"PATCH {_TEST}",
    "UpdateCustomModelDeployment": f"PATCH {_DEPLOYMENT}",
    "UpdateMarketplaceModelEndpoint": f"PATCH {_ENDPOINT}",
}
"""Each with its method and path."""

_DECLARED = {
    "CreateModelCopyJob": Kind.RESOURCE_NOT_FOUND,
}
"""What the operations answer that do not declare ValidationException."""


def routes() -> list[Route]:
    """Longer paths first: an ARN may hold slashes, so a shorter path would take a longer one for an ARN."""
    found = [_route(name, *where.split(" ")) for name, where in OPERATIONS.items()]
    return sorted(found, key=lambda route: -route.path.count("/"))


def _route(name: str, method: str, path: str) -> Route:
    async def refuse(request: Request) -> Response:
        raise errors.unsupported_operation(name, _DECLARED.get(name, Kind.VALIDATION))

    return Route(_LABELS.sub(_labelled, path), refuse, methods=[method], name=name)


_LABELS = re.compile(r"{(\w+)}(?=/([\w-]+)/{)?")
"""With the word between a label and the next."""


def _labelled(label: re.Match[str]) -> str:
    name, word = label.groups()
    return f"{{{name}:{label_until(word) if word else LABEL}}}"
