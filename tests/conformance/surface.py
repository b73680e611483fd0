"""What the service's model does not say about requests: the rules of a conversation, and what a text model
of this server refuses. Everything else about them is read from the model.

Members are known by the shape that has them and their name there, wherever that shape is used; `[]` is a
list's element, `{key}` and `{value}` are a map's.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
from botocore.model import OperationModel

from outcrop.api.bedrock import not_offered
from outcrop.api.bedrock.plane import new_id
from outcrop.guardrails.pii import FORMS
from outcrop.ledger.resource import Resource

from ..api.server import DATABASES

MODEL = "meta.llama3-8b-instruct-v1:0"
Key = tuple[str, str]
Fields = dict[str, Any]


def blob(text: str) -> str:
    """As a blob travels within JSON."""
    return base64.b64encode(text.encode()).decode()


# -- requests --------------------------------------------------------------------------------------


def user(*blocks: Fields) -> Fields:
    return {"role": "user", "content": list(blocks or ({"text": "Hi"},))}


def assistant(*blocks: Fields) -> Fields:
    return {"role": "assistant", "content": list(blocks or ({"text": "Hello"},))}


def native(text: str = "Hi") -> str:
    """A Llama model's own body."""
    return json.dumps({"prompt": text, "max_gen_len": 4, "temperature": 0})


TOOL = {"toolSpec": {"name": "search", "inputSchema": {"json": {"type": "object"}}}}
TOOLS = {"tools": [TOOL]}
_SHORT = {"maxTokens": 4, "temperature": 0}
_INVOCATION = "arn:aws:bedrock:us-east-1:000000000000:async-invoke/00000000made"
ASYNC = {
    "modelId": MODEL,
    "modelInput": {"prompt": "Hi"},
    "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://bucket/key"}},
}

MODEL_MEMBER = {
    "Converse": "modelId",
    "ConverseStream": "modelId",
    "CountTokens": "modelId",
    "InvokeModel": "modelId",
    "InvokeModelWithResponseStream": "modelId",
    "GetFoundationModel": "modelIdentifier",
    "GetFoundationModelAvailability": "modelId",
}
"""The member that names the model, of the operations that need one."""


def conversation(operation: OperationModel, fields: Fields) -> Fields:
    """A request of this operation for a conversation with these fields of Converse."""
    fields = {"messages": [user()]} | fields
    if operation.name == "CountTokens":
        return {"modelId": MODEL, "input": {"converse": fields}}
    return {"modelId": MODEL, "inferenceConfig": _SHORT} | fields


def request(operation: OperationModel, text: str = "Hi") -> Fields:
    """A valid request, short to answer. text: what it says to the model, if to any."""
    match operation.name:
        case "Converse" | "ConverseStream" | "CountTokens":
            return conversation(operation, {"messages": [user({"text": text})]})
        case "InvokeModel" | "InvokeModelWithResponseStream":
            return {"modelId": MODEL, "body": native(text)}
        case "InvokeModelWithBidirectionalStream":
            return {"modelId": MODEL, "body": b""}
        case "GetFoundationModel":
            return {"modelIdentifier": MODEL}
        case "ApplyGuardrail":
            content = [{"text": {"text": text}}]
            return {
                "guardrailIdentifier": A_GUARDRAIL,
                "guardrailVersion": "1",
                "source": "INPUT",
                "content": content,
            }
        case "InvokeGuardrailChecks":
            checks = {"promptAttack": {"categories": [{"category": "JAILBREAK"}]}}
            return {"messages": [user({"text": text})], "checks": checks}
        case "StartAsyncInvoke":
            return ASYNC
        case "GetAsyncInvoke":
            return {"invocationArn": _INVOCATION}
        case name if name in not_offered.OPERATIONS:
            return dict.fromkeys(re.findall(r"{(\w+)}", operation.http["requestUri"]), "abc")
        case name if name in CONTROL:
            return CONTROL[name]
        case _:
            return {}


PROFILE = {
    "inferenceProfileName": "team a",
    "modelSource": {"copyFrom": f"arn:aws:bedrock:us-east-1::foundation-model/{MODEL}"},
}
_A_PROFILE = "arn:aws:bedrock:us-east-1:000000000000:application-inference-profile/00000000made"

JOB = {
    "jobName": "job",
    "roleArn": "arn:aws:iam::000000000000:role/batch",
    "modelId": MODEL,
    "inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://bucket/in.jsonl"}},
    "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://bucket/out/"}},
}
IMPORT = {
    "jobName": "job",
    "importedModelName": "imported",
    "roleArn": "arn:aws:iam::000000000000:role/import",
    "modelDataSource": {"s3DataSource": {"s3Uri": "s3://bucket/model/"}},
}
_TARGET = {"modelArn": PROFILE["modelSource"]["copyFrom"]}
_A_NAME = "a-new-name"
ROUTER = {
    "promptRouterName": _A_NAME,
    "models": [_TARGET],
    "routingCriteria": {"responseQualityDifference": 10},
    "fallbackModel": _TARGET,
}
PROVISIONED = {"provisionedModelName": _A_NAME, "modelId": MODEL, "modelUnits": 1}
_A_PROVISIONED = "arn:aws:bedrock:us-east-1:000000000000:provisioned-model/00000000made"
_A_ROUTER = "arn:aws:bedrock:us-east-1:000000000000:prompt-router/00000000made"
_AN_IMPORT = "arn:aws:bedrock:us-east-1:000000000000:model-import-job/00000000made"
_A_MODEL = "arn:aws:bedrock:us-east-1:000000000000:imported-model/00000000made"
_A_JOB = "arn:aws:bedrock:us-east-1:000000000000:model-invocation-job/00000000made"

GUARDRAIL = {
    "name": "guardrail",
    "blockedInputMessaging": "Not that.",
    "blockedOutputsMessaging": "Nothing of that.",
    "wordPolicyConfig": {"wordsConfig": [{"text": "forbidden"}]},
}
A_GUARDRAIL = "arn:aws:bedrock:us-east-1:000000000000:guardrail/00000000made"

CONTROL: dict[str, Fields] = {
    "CreateGuardrail": GUARDRAIL,
    "UpdateGuardrail": GUARDRAIL | {"guardrailIdentifier": A_GUARDRAIL},
    "GetGuardrail": {"guardrailIdentifier": A_GUARDRAIL},
    "DeleteGuardrail": {"guardrailIdentifier": A_GUARDRAIL},
    "CreateGuardrailVersion": {"guardrailIdentifier": A_GUARDRAIL},
    "CreateModelInvocationJob": JOB,
    "GetModelInvocationJob": {"jobIdentifier": _A_JOB},
    "StopModelInvocationJob": {"jobIdentifier": _A_JOB},
    "GetFoundationModelAvailability": {"modelId": MODEL},
    "CreateInferenceProfile": PROFILE,
    "GetInferenceProfile": {"inferenceProfileIdentifier": f"us.{MODEL}"},
    "DeleteInferenceProfile": {"inferenceProfileIdentifier": _A_PROFILE},
    "CreateModelImportJob": IMPORT,
    "GetModelImportJob": {"jobIdentifier": _AN_IMPORT},
    "GetImportedModel": {"modelIdentifier": _A_MODEL},
    "DeleteImportedModel": {"modelIdentifier": _A_MODEL},
    "CreateProvisionedModelThroughput": PROVISIONED,
    "GetProvisionedModelThroughput": {"provisionedModelId": _A_PROVISIONED},
    "UpdateProvisionedModelThroughput": {"provisionedModelId": _A_PROVISIONED},
    "DeleteProvisionedModelThroughput": {"provisionedModelId": _A_PROVISIONED},
    "CreatePromptRouter": ROUTER,
    "GetPromptRouter": {"promptRouterArn": _A_ROUTER},
    "DeletePromptRouter": {"promptRouterArn": _A_ROUTER},
    "PutModelInvocationLoggingConfiguration": {"loggingConfig": {"s3Config": {"bucketName": "logs"}}},
    "TagResource": {"resourceARN": _A_PROFILE, "tags": [{"key": "team", "value": "a"}]},
    "UntagResource": {"resourceARN": _A_PROFILE, "tagKeys": ["team"]},
    "ListTagsForResource": {"resourceARN": _A_PROFILE},
}
"""Requests of the control plane, of operations that need more than nothing."""


def _make_profile(http: httpx.Client) -> str:
    response = http.post("/inference-profiles", json=PROFILE)
    # Where nobody may make one, it does not matter that there is none.
    return str(response.json().get("inferenceProfileArn", _A_PROFILE))


def _make_job(http: httpx.Client) -> str:
    return str(http.post("/model-invocation-job", json=JOB).json().get("jobArn", _A_JOB))


def _make_import(http: httpx.Client) -> str:
    return str(http.post("/model-import-jobs", json=IMPORT).json().get("jobArn", _AN_IMPORT))


def _make_model(http: httpx.Client) -> str:
    """As an import leaves it, which takes weights and time."""
    identifier, now = new_id(), datetime.now(UTC)
    arn = _A_MODEL.replace("00000000made", identifier)
    with DATABASES[str(http.base_url)].transaction() as session:
        session.add(
            Resource(
                kind="imported-model", id=identifier, arn=arn, name="mine", status="ACTIVE", token=None,
                created_at=now, updated_at=now, ended_at=None,
                body={
                    "path": "/nowhere", "copied": False, "job_arn": _AN_IMPORT, "job_name": "job",
                    "source": IMPORT["modelDataSource"], "architecture": "llama", "instruct": True,
                },
            )
        )  # fmt: skip
    return arn


def _make_invocation(http: httpx.Client) -> str:
    return str(http.post("/async-invoke", json=ASYNC).json().get("invocationArn", _INVOCATION))


def _new_name(http: httpx.Client) -> str:
    """Names of routers and Provisioned Throughputs must be told apart."""
    return new_id()


def _make_router(http: httpx.Client) -> str:
    router = ROUTER | {"promptRouterName": new_id()}
    return str(http.post("/prompt-routers", json=router).json().get("promptRouterArn", _A_ROUTER))


def _make_provisioned(http: httpx.Client) -> str:
    body = PROVISIONED | {"provisionedModelName": new_id()}
    made = http.post("/provisioned-model-throughput", json=body).json()
    return str(made.get("provisionedModelArn", _A_PROVISIONED))


def _make_guardrail(http: httpx.Client) -> str:
    """With a version."""
    arn = str(http.post("/guardrails", json=GUARDRAIL).json().get("guardrailArn", A_GUARDRAIL))
    http.post(f"/guardrails/{quote(arn, safe='')}", json={})
    return arn


MADE: dict[str, Callable[[httpx.Client], str]] = {
    _A_NAME: _new_name,
    _A_ROUTER: _make_router,
    _A_PROVISIONED: _make_provisioned,
    _A_PROFILE: _make_profile,
    _A_JOB: _make_job,
    _AN_IMPORT: _make_import,
    _A_MODEL: _make_model,
    _INVOCATION: _make_invocation,
    A_GUARDRAIL: _make_guardrail,
}
"""Resources that do not exist, as requests name them, and how to make one in the place of each."""


# -- what is refused -------------------------------------------------------------------------------

NOT_OFFERED: dict[str, tuple[str, str]] = {
    "InvokeModelWithBidirectionalStream": (
        "ValidationException",
        "The model is unsupported for bidirectional streaming.",
    ),
    "InvokeGuardrailChecks": ("ValidationException", "InvokeGuardrailChecks"),
    **{name: ("ValidationException", name) for name in not_offered.OPERATIONS},
    "CreateModelCopyJob": ("ResourceNotFoundException", "CreateModelCopyJob"),
}
"""Operations that answer every request with an error, and which. Their members are not looked at."""


def _media(kind: str) -> str:
    return f"doesn't support the {kind} content block"


def _field(name: str) -> str:
    return f"doesn't support the {name} field"


_HALF = "named by guardrailIdentifier and guardrailVersion together"

REFUSED: dict[Key, str] = {
    ("CreateModelImportJobRequest", "importedModelKmsKeyId"): "doesn't encrypt models",
    ("UpdateProvisionedModelThroughputRequest", "desiredModelId"): "keeps its model",
    ("LoggingConfig", "cloudWatchConfig"): "Remove cloudWatchConfig",
    ("ContentBlock", "image"): _media("image"),
    ("ContentBlock", "video"): _media("video"),
    ("ContentBlock", "audio"): _media("audio"),
    ("ContentBlock", "toolAddition"): _field("toolAddition"),
    ("ContentBlock", "toolRemoval"): _field("toolRemoval"),
    ("ToolResultContentBlock", "image"): _media("image"),
    ("ToolResultContentBlock", "video"): _media("video"),
    ("GuardrailConverseContentBlock", "image"): _media("image"),
    ("DocumentSource", "s3Location"): _field(r"document\.source\.s3Location"),
    ("Tool", "systemTool"): _field(r"toolConfig\.tools\.\d+\.systemTool"),
    ("GuardrailContentBlock", "image"): _media("image"),
    **{
        (f"{operation}GuardrailRequest", name): name
        for operation in ("Create", "Update")
        for name in (
            "contentPolicyConfig",
            "contextualGroundingPolicyConfig",
            "automatedReasoningPolicyConfig",
            "crossRegionConfig",
            "kmsKeyId",
        )
    },
    ("ConverseRequest", "promptVariables"): _field("promptVariables"),
    ("ConverseStreamRequest", "promptVariables"): _field("promptVariables"),
    ("OutputConfig", "effort"): _field(r"outputConfig\.effort"),
    ("InvokeModelRequest", "guardrailIdentifier"): _HALF,
    ("InvokeModelRequest", "guardrailVersion"): _HALF,
    ("InvokeModelWithResponseStreamRequest", "guardrailIdentifier"): _HALF,
    ("InvokeModelWithResponseStreamRequest", "guardrailVersion"): _HALF,
}
"""Members that a request may not have, with everything in them, and the words. Their shapes are checked all
the same, and first."""

_UNKNOWN_MODEL = "The provided model identifier is invalid"

SAYS: dict[Key, str] = {
    ("ConverseRequest", "modelId"): _UNKNOWN_MODEL,
    ("ConverseStreamRequest", "modelId"): _UNKNOWN_MODEL,
    ("InvokeModelRequest", "modelId"): _UNKNOWN_MODEL,
    ("InvokeModelWithResponseStreamRequest", "modelId"): _UNKNOWN_MODEL,
    ("GetFoundationModelRequest", "modelIdentifier"): _UNKNOWN_MODEL,
}
"""The words for members whose errors the service does not word by their path."""

# -- what is taken ---------------------------------------------------------------------------------

_TOKEN = base64.urlsafe_b64encode(b'["2026-01-01T00:00:00+00:00", "000000000000"]').decode()
_CONVERSATIONS = [[user()], [user(), assistant(), user()]]
_EXTRAS = [
    {},
    {"top_k": 5, "seed": 3, "min_p": 0.1},
    {"repetition_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": -0.5, "logit_bias": {"65": 5}},
]
_SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
_CONTENT_TYPES = ["application/json"]
_ACCEPTS = ["application/json", "*/*"]
_METADATA = ['{"team": "a"}']

EXAMPLES: dict[Key, list[Any]] = {
    ("ConverseRequest", "modelId"): [MODEL, f"us.{MODEL}"],
    ("ConverseStreamRequest", "modelId"): [MODEL, f"us.{MODEL}"],
    ("CountTokensRequest", "modelId"): [MODEL],
    ("InvokeModelRequest", "modelId"): [MODEL],
    ("InvokeModelWithResponseStreamRequest", "modelId"): [MODEL],
    ("GetFoundationModelRequest", "modelIdentifier"): [MODEL],
    ("GetFoundationModelAvailabilityRequest", "modelId"): [MODEL],
    ("InferenceProfileModelSource", "copyFrom"): [PROFILE["modelSource"]["copyFrom"]],
    ("GetInferenceProfileRequest", "inferenceProfileIdentifier"): [f"us.{MODEL}", _A_PROFILE],
    ("DeleteInferenceProfileRequest", "inferenceProfileIdentifier"): [_A_PROFILE],
    ("ListInferenceProfilesRequest", "nextToken"): ["1"],
    ("CreateModelImportJobRequest", "roleArn"): [IMPORT["roleArn"]],
    ("CreateModelImportJobRequest", "importedModelName"): ["other"],
    ("CreateModelImportJobRequest", "importedModelKmsKeyId"): ["alias/a"],
    ("GetModelImportJobRequest", "jobIdentifier"): [_AN_IMPORT],
    ("GetImportedModelRequest", "modelIdentifier"): [_A_MODEL],
    ("DeleteImportedModelRequest", "modelIdentifier"): [_A_MODEL],
    ("ListModelImportJobsRequest", "nextToken"): [_TOKEN],
    ("ListModelImportJobsRequest", "creationTimeAfter"): ["2026-01-01T00:00:00Z"],
    ("ListModelImportJobsRequest", "creationTimeBefore"): ["2026-01-01T00:00:00Z"],
    ("ListImportedModelsRequest", "nextToken"): [_TOKEN],
    ("ListImportedModelsRequest", "creationTimeAfter"): ["2026-01-01T00:00:00Z"],
    ("ListImportedModelsRequest", "creationTimeBefore"): ["2026-01-01T00:00:00Z"],
    ("CreateModelInvocationJobRequest", "roleArn"): [JOB["roleArn"]],
    ("CreateModelInvocationJobRequest", "modelId"): [MODEL, f"us.{MODEL}"],
    ("GetModelInvocationJobRequest", "jobIdentifier"): [_A_JOB],
    ("StopModelInvocationJobRequest", "jobIdentifier"): [_A_JOB],
    ("ModelInvocationJobS3OutputDataConfig", "s3EncryptionKeyId"): ["alias/a", "a" * 36],
    ("ListModelInvocationJobsRequest", "nextToken"): [_TOKEN],
    ("ListModelInvocationJobsRequest", "submitTimeAfter"): ["2026-01-01T00:00:00Z"],
    ("ListModelInvocationJobsRequest", "submitTimeBefore"): ["2026-01-01T00:00:00Z"],
    ("CreateProvisionedModelThroughputRequest", "provisionedModelName"): [_A_NAME],
    ("CreateProvisionedModelThroughputRequest", "modelUnits"): [1, 3],
    ("CreateProvisionedModelThroughputRequest", "modelId"): [MODEL, PROFILE["modelSource"]["copyFrom"]],
    ("GetProvisionedModelThroughputRequest", "provisionedModelId"): [_A_PROVISIONED],
    ("UpdateProvisionedModelThroughputRequest", "provisionedModelId"): [_A_PROVISIONED],
    ("UpdateProvisionedModelThroughputRequest", "desiredProvisionedModelName"): [_A_NAME],
    ("UpdateProvisionedModelThroughputRequest", "desiredModelId"): [MODEL],
    ("DeleteProvisionedModelThroughputRequest", "provisionedModelId"): [_A_PROVISIONED],
    ("ListProvisionedModelThroughputsRequest", "nextToken"): [_TOKEN],
    ("ListProvisionedModelThroughputsRequest", "creationTimeAfter"): ["2026-01-01T00:00:00Z"],
    ("ListProvisionedModelThroughputsRequest", "creationTimeBefore"): ["2026-01-01T00:00:00Z"],
    ("ListProvisionedModelThroughputsRequest", "modelArnEquals"): [PROFILE["modelSource"]["copyFrom"]],
    ("CreatePromptRouterRequest", "promptRouterName"): [_A_NAME],
    ("CreatePromptRouterRequest", "models"): [[_TARGET], [_TARGET] * 2],
    ("PromptRouterTargetModel", "modelArn"): [_TARGET["modelArn"]],
    ("GetPromptRouterRequest", "promptRouterArn"): [_A_ROUTER],
    ("DeletePromptRouterRequest", "promptRouterArn"): [_A_ROUTER],
    ("ListPromptRoutersRequest", "nextToken"): [_TOKEN],
    ("S3Config", "bucketName"): ["logs", "a" * 63],
    ("S3Config", "keyPrefix"): ["team/a"],
    ("CloudWatchConfig", "roleArn"): ["arn:aws:iam::000000000000:role/logs"],
    ("TagResourceRequest", "resourceARN"): [_A_PROFILE],
    ("UntagResourceRequest", "resourceARN"): [_A_PROFILE],
    ("ListTagsForResourceRequest", "resourceARN"): [_A_PROFILE],
    ("ListFoundationModelsRequest", "byProvider"): ["Meta", "a" * 63],
    ("StartAsyncInvokeRequest", "modelId"): [MODEL],
    ("GetAsyncInvokeRequest", "invocationArn"): [_INVOCATION],
    ("AsyncInvokeS3OutputDataConfig", "kmsKeyId"): ["arn:aws:kms:us-east-1:012345678901:alias/a"],
    ("ListAsyncInvokesRequest", "nextToken"): [_TOKEN],
    ("ListAsyncInvokesRequest", "submitTimeAfter"): ["2026-01-01T00:00:00Z"],
    ("ListAsyncInvokesRequest", "submitTimeBefore"): ["2026-01-01T00:00:00Z"],
    ("InvokeModelRequest", "body"): [native()],
    ("InvokeModelRequest", "contentType"): _CONTENT_TYPES,
    ("InvokeModelRequest", "accept"): _ACCEPTS,
    ("InvokeModelRequest", "requestMetadata"): _METADATA,
    ("InvokeModelWithResponseStreamRequest", "body"): [native()],
    ("InvokeModelWithResponseStreamRequest", "contentType"): _CONTENT_TYPES,
    ("InvokeModelWithResponseStreamRequest", "accept"): _ACCEPTS,
    ("InvokeModelWithResponseStreamRequest", "requestMetadata"): _METADATA,
    ("InvokeModelTokensRequest", "body"): [blob(native())],
    ("ConverseRequest", "messages"): _CONVERSATIONS,
    ("ConverseStreamRequest", "messages"): _CONVERSATIONS,
    ("ConverseTokensRequest", "messages"): _CONVERSATIONS,
    ("Messages", "[]"): [user()],
    ("Message", "content"): [[{"text": "Hi"}], [{"text": "Hi"}, {"text": "there"}]],
    ("ConverseRequest", "additionalModelRequestFields"): _EXTRAS,
    ("ConverseStreamRequest", "additionalModelRequestFields"): _EXTRAS,
    ("ConverseTokensRequest", "additionalModelRequestFields"): _EXTRAS,
    ("ConverseRequestAdditionalModelResponseFieldPathsList", "[]"): ["/stop_reason", "/" + "a" * 255],
    ("ConverseStreamRequestAdditionalModelResponseFieldPathsList", "[]"): ["/stop_reason"],
    ("ConverseRequest", "promptVariables"): [{"name": {"text": "value"}}],
    ("ConverseStreamRequest", "promptVariables"): [{"name": {"text": "value"}}],
    **{
        (shape, "guardrailIdentifier"): [A_GUARDRAIL]
        for shape in (
            "GuardrailConfiguration",
            "GuardrailStreamConfiguration",
            "ApplyGuardrailRequest",
            "UpdateGuardrailRequest",
            "GetGuardrailRequest",
            "ListGuardrailsRequest",
            "DeleteGuardrailRequest",
            "CreateGuardrailVersionRequest",
        )
    },
    **{
        (shape, "guardrailVersion"): ["1", "DRAFT"]
        for shape in (
            "GuardrailConfiguration",
            "GuardrailStreamConfiguration",
            "ApplyGuardrailRequest",
            "GetGuardrailRequest",
        )
    },
    ("DeleteGuardrailRequest", "guardrailVersion"): ["1"],
    ("ListGuardrailsRequest", "nextToken"): [_TOKEN],
    ("GuardrailPiiEntityConfig", "type"): sorted(FORMS),  # for the others see tests/guardrails
    ("GuardrailTopicsTierConfig", "tierName"): ["CLASSIC"],
    ("CreateGuardrailRequest", "kmsKeyId"): ["alias/a"],
    ("UpdateGuardrailRequest", "kmsKeyId"): ["alias/a"],
    ("GuardrailCrossRegionConfig", "guardrailProfileIdentifier"): ["us.guardrail.v1:0"],
    ("GuardrailAutomatedReasoningPolicyConfigPoliciesList", "[]"): [
        "arn:aws:bedrock:us-east-1:012345678901:automated-reasoning-policy/abcdefghijkl"
    ],
    ("InvokeModelRequest", "guardrailVersion"): ["1", "DRAFT"],
    ("InvokeModelWithResponseStreamRequest", "guardrailVersion"): ["1", "DRAFT"],
    ("InferenceConfiguration", "maxTokens"): [1, 100],
    ("DocumentBlock", "format"): ["txt", "md", "csv", "html"],  # the others are no text: see tests/text
    ("DocumentBlock", "name"): ["report", "Report (1) [a-b]", "a" * 200],
    ("DocumentSource", "bytes"): [blob("Some words.")],
    ("ToolConfiguration", "tools"): [[TOOL]],
    ("ToolConfigurationToolsList", "[]"): [TOOL],
    ("ToolInputSchema", "json"): [{"type": "object"}, _SCHEMA, {}],
    ("ToolSpecification", "name"): ["search", "a" * 64],
    ("SpecificToolChoice", "name"): ["search"],
    ("ToolUseBlock", "input"): [{}, {"q": [1, None, "x"]}],
    ("ToolResultContentBlock", "json"): [{}, {"a": [1, None]}],
    ("JsonSchemaDefinition", "schema"): [json.dumps(_SCHEMA)],
    ("OutputConfig", "effort"): ["low"],
}
"""Values that fit where the model alone does not tell: what means something, rather than anything."""

PREFERRED = {"DocumentSource": "text"}
"""Of a union, the member to use where any would do, if not the first."""

BESIDE: dict[str, Fields] = {
    "ConverseTokensRequest": {"messages": [user()]},
    "DocumentBlock": {"format": "txt"},
    "LoggingConfig": {"s3Config": {"bucketName": "logs"}},
    "GuardrailWordPolicyConfig": {"wordsConfig": [{"text": "forbidden"}]},
    "GuardrailConfiguration": {"guardrailIdentifier": A_GUARDRAIL, "guardrailVersion": "DRAFT"},
    "GuardrailStreamConfiguration": {"guardrailIdentifier": A_GUARDRAIL, "guardrailVersion": "DRAFT"},
}
"""Members that a structure needs although the model does not require them."""


def _id_of(block: Any) -> Any:
    """The id of a call or of its result, or one that fits where it has none."""
    given = block.get("toolUseId") if isinstance(block, dict) else None
    return given if isinstance(given, str) and 0 < len(given) <= 64 and given.strip(" ?") else "call"


def _after_call(call: Any, result: Any) -> Fields:
    """A conversation in which the assistant called a tool and was told the result."""
    return {
        "messages": [user(), assistant({"toolUse": call}), user({"toolResult": result})],
        "toolConfig": TOOLS,
    }


def _with_call(block: Any) -> Fields:
    return _after_call(block, {"toolUseId": _id_of(block), "content": [{"text": "found"}]})


def _with_result(block: Any) -> Fields:
    return _after_call({"toolUseId": _id_of(block), "name": "search", "input": {}}, block)


def _said_by_user(name: str) -> Callable[[Any], Fields]:
    return lambda block: {"messages": [user({"text": "Hi"}, {name: block})]}


def _said_by_assistant(name: str) -> Callable[[Any], Fields]:
    return lambda block: {"messages": [user(), assistant({"text": "Hello"}, {name: block}), user()]}


PLACES: dict[Key, Callable[[Any], Fields]] = {
    ("Message", "role"): lambda role: {"messages": [user(), {**user(), "role": role}, user()]},
    ("ContentBlock", "cachePoint"): _said_by_user("cachePoint"),
    ("ContentBlock", "document"): _said_by_user("document"),
    ("ContentBlock", "toolUse"): _with_call,
    ("ContentBlock", "toolResult"): _with_result,
    ("ContentBlock", "reasoningContent"): _said_by_assistant("reasoningContent"),
    ("ContentBlock", "citationsContent"): _said_by_assistant("citationsContent"),
    ("Tool", "cachePoint"): lambda point: {"toolConfig": {"tools": [TOOL, {"cachePoint": point}]}},
}
"""Where a member makes sense in a conversation: fields of Converse around it."""
