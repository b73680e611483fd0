"""Every error this API answers with: its code, its HTTP status, its words and its form on the wire.

The words are the service's own where they are known, because client libraries match on them; where a
message is not known, it names the field and what to do about it. Nothing else in `outcrop.api` writes an
error body, save `openai/errors.py` and `anthropic/errors.py`: those routes have forms of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
from starlette.responses import Response

from outcrop.api import eventstream
from outcrop.api.error_kind import STREAMABLE, Kind
from outcrop.api.responses import json_response


class ApiError(Exception):
    """An answer other than success. `members` are the exception's fields besides `message`."""

    def __init__(self, kind: Kind, message: str, **members: object) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.members = members

    def response(self) -> Response:
        """The error as an HTTP answer (the request id is added to every answer elsewhere)."""
        return json_response(
            {"message": self.message, **self.members},
            status=self.kind.status,
            headers={"x-amzn-ErrorType": self.kind.code},
        )

    def event(self, declared: Collection[Kind] = STREAMABLE) -> bytes:
        """The error as the last frame of a stream that has already begun. declared: the exceptions that
        the stream's shape has; any other becomes the nearest of them."""
        kind, members = self.kind, self.members
        if kind is Kind.MODEL_ERROR:
            kind = Kind.MODEL_STREAM_ERROR
            members = {"originalStatusCode": 500, "originalMessage": self.message}
        elif kind not in declared:
            kind, members = Kind.INTERNAL, {}
        body = msgspec.json.encode({"message": self.message, **members})
        return eventstream.exception(kind.event_name).encode(body)


# -- models and capacity ---------------------------------------------------------------------------


def invalid_model_identifier() -> ApiError:
    return ApiError(Kind.VALIDATION, "The provided model identifier is invalid.")


def foundation_model_not_found() -> ApiError:
    return ApiError(
        Kind.RESOURCE_NOT_FOUND,
        "Could not resolve the foundation model from the provided model identifier.",
    )


def end_of_life() -> ApiError:
    return ApiError(
        Kind.RESOURCE_NOT_FOUND,
        "This model version has reached the end of its life. "
        "Please refer to the AWS documentation for more details.",
    )


def needs_inference_profile(model_id: str) -> ApiError:
    return validation(
        f"Invocation of model ID {model_id} with on-demand throughput isn’t supported. Retry your request "
        "with the ID or ARN of an inference profile that contains this model."
    )


def no_token_counting() -> ApiError:
    return ApiError(Kind.VALIDATION, "The provided model doesn't support counting tokens.")


def no_bidirectional_stream() -> ApiError:
    return ApiError(Kind.VALIDATION, "The model is unsupported for bidirectional streaming.")


def no_asynchronous_invocation() -> ApiError:
    return ApiError(Kind.VALIDATION, "The provided model doesn't support asynchronous inference.")


def unknown_invocation(arn: str) -> ApiError:
    return ApiError(Kind.VALIDATION, f"Could not find an asynchronous invocation with the ARN {arn}.")


def unknown_guardrail(identifier: str, version: str) -> ApiError:
    return ApiError(
        Kind.RESOURCE_NOT_FOUND,
        f"The guardrail {identifier} with version {version} does not exist. "
        "Check the guardrail identifier and version and try again.",
    )


def unsupported_operation(name: str, kind: Kind = Kind.VALIDATION) -> ApiError:
    return ApiError(kind, f"This server doesn't support the {name} operation.")


def model_not_ready() -> ApiError:
    return ApiError(
        Kind.MODEL_NOT_READY, "Model is not ready for inference. Wait and try your request again."
    )


def model_error(resource_name: str | None = None) -> ApiError:
    members = {"originalStatusCode": 500} | ({"resourceName": resource_name} if resource_name else {})
    return ApiError(Kind.MODEL_ERROR, "The model failed while processing your request.", **members)


def model_timeout() -> ApiError:
    return ApiError(
        Kind.MODEL_TIMEOUT, "Model has timed out in processing the request. Try your request again."
    )


def model_stream_error() -> ApiError:
    return ApiError(
        Kind.MODEL_STREAM_ERROR,
        "An error occurred while streaming the response. Retry your request.",
        originalStatusCode=500,
        originalMessage="The model failed while processing your request.",
    )


def no_model_access() -> ApiError:
    return ApiError(Kind.ACCESS_DENIED, "You don't have access to the model with the specified model ID.")


def service_quota_exceeded(detail: str = "") -> ApiError:
    text = "Your request exceeds the service quota for your account."
    return ApiError(Kind.SERVICE_QUOTA_EXCEEDED, f"{text} {detail}".rstrip())


def conflict(detail: str = "") -> ApiError:
    text = "Error occurred because of a conflict while performing an operation."
    return ApiError(Kind.CONFLICT, f"{text} {detail}".rstrip())


def too_many_requests() -> ApiError:
    return ApiError(Kind.THROTTLING, "Too many requests, please wait before trying again.")


def service_unavailable() -> ApiError:
    return ApiError(Kind.SERVICE_UNAVAILABLE, "Bedrock is unable to process your request.")


def internal_error() -> ApiError:
    return ApiError(
        Kind.INTERNAL,
        "The system encountered an unexpected error during processing. Try your request again.",
    )


def unknown_operation() -> ApiError:
    return ApiError(Kind.UNKNOWN_OPERATION, "The requested operation is not recognized by the service.")


# -- the request as a whole ------------------------------------------------------------------------


def serialization(message: str) -> ApiError:
    return ApiError(Kind.SERIALIZATION, message)


def violations(found: Sequence[str]) -> ApiError:
    """Constraint violations of the service model, in Smithy's wording."""
    noun = "error" if len(found) == 1 else "errors"
    return ApiError(Kind.VALIDATION, f"{len(found)} validation {noun} detected: {'; '.join(found)}")


def body_too_long(limit: int) -> ApiError:
    return violations(
        [
            "Value at 'body' failed to satisfy constraint: "
            f"Member must have length less than or equal to {limit}"
        ]
    )


def entity_too_large(limit: int) -> ApiError:
    return ApiError(Kind.ENTITY_TOO_LARGE, f"Request body must not be larger than {limit} bytes.")


def body_timeout(seconds: float) -> ApiError:
    return ApiError(Kind.REQUEST_TIMEOUT, f"The request body did not arrive within {seconds:g} seconds.")


def invalid_request_metadata() -> ApiError:
    return validation(
        "The value of the X-Amzn-Bedrock-Request-Metadata header must be a JSON object of strings."
    )


def malformed_input(found: Sequence[str] = (), *, source: str = "") -> ApiError:
    """The native body does not fit its JSON schema. `source` goes before the service's sentence."""
    detail = f": {''.join(found)}" if found else ""
    return validation(f"{source}Malformed input request{detail}, please reformat your input and try again.")


# -- the control plane ------------------------------------------------------------------------------


def resource_not_found(noun: str, identifier: str) -> ApiError:
    return ApiError(Kind.RESOURCE_NOT_FOUND, f"The {noun} {identifier} was not found.")


def token_reused() -> ApiError:
    return ApiError(
        Kind.CONFLICT,
        "The clientRequestToken was used for a request with other parameters. "
        "Use another token, or repeat the request as it was.",
    )


def job_has_ended(identifier: str, status: str) -> ApiError:
    return ApiError(Kind.CONFLICT, f"The job {identifier} can't be stopped: its status is {status}.")


def name_taken(noun: str, name: str) -> ApiError:
    return ApiError(Kind.CONFLICT, f"There is another {noun} of the name {name}. Choose another name.")


def bad_page_token() -> ApiError:
    return ApiError(Kind.VALIDATION, "The nextToken is invalid. Use the one of the page before.")


def too_many_tags(arn: str, limit: int) -> ApiError:
    return ApiError(
        Kind.TOO_MANY_TAGS,
        f"A resource can have up to {limit} tags. Remove tags and try again.",
        resourceName=arn,
    )


def tags_exceeded() -> ApiError:
    return ApiError(Kind.TOO_MANY_TAGS, "The resource has as many tags as it may have.")


def resource_in_use() -> ApiError:
    return ApiError(Kind.RESOURCE_IN_USE, "The resource is in use. End its use and try again.")


# -- conversations ---------------------------------------------------------------------------------

MODEL_RETURNED = "The model returned the following errors: "


def validation(message: str) -> ApiError:
    return ApiError(Kind.VALIDATION, message)


def must_start_with_user() -> ApiError:
    return validation(
        "A conversation must start with a user message. "
        "Try again with a conversation that starts with a user message."
    )


def must_alternate() -> ApiError:
    return validation(
        "A conversation must alternate between user and assistant roles. "
        "Make sure the conversation alternates between user and assistant roles and try again."
    )


def must_end_with_user() -> ApiError:
    return validation(
        "The model that you are using requires the last turn in the conversation to be a user message. "
        "Add a user message to the conversation and try again."
    )


def empty_content(path: str) -> ApiError:
    return validation(
        f"The content field in the Message object at {path} is empty. "
        "Add a ContentBlock object to the content field and try again."
    )


def blank_text(shape: str, path: str) -> ApiError:
    return validation(
        f"The text field in the {shape} object at {path} is blank. Add text to the text field, and try again."
    )


def union_not_one(shape: str, path: str, members: Sequence[str], found: int) -> ApiError:
    rule = "must set one of the following keys" if found == 0 else "must set only one of the following keys"
    return validation(f"{shape} object at {path} {rule}: {', '.join(members)}.")


def unsupported_field(name: str) -> ApiError:
    return validation(f"This model doesn't support the {name} field. Remove {name} and try again.")


def unsupported_by_engine(what: str) -> ApiError:
    return validation(
        f"The engine that serves this model does not support {what}. Leave it out, or use another model."
    )


def unsupported_content(kind: str) -> ApiError:
    return validation(
        f"This model doesn't support the {kind} content block that you provided. "
        "Update the content block and try again."
    )


def unsupported_streaming() -> ApiError:
    return validation("The model is unsupported for streaming.")


def unsupported_tools(*, streaming: bool) -> ApiError:
    mode = " in streaming mode" if streaming else ""
    return validation(f"This model doesn't support tool use{mode}.")


def block_of_another_role(role: str, kind: str) -> ApiError:
    what = _BLOCK_NAMES.get(kind, f"{kind} blocks")
    return validation(
        f"{role.capitalize()} messages cannot contain {what}. Please remove the {what} and try again."
    )


_BLOCK_NAMES = {
    "document": "documents",
    "toolUse": "tool uses",
    "toolResult": "tool results",
    "searchResult": "search results",
    "reasoningContent": "reasoning content",
    "citationsContent": "citations",
}


def not_a_json_object(path: str) -> ApiError:
    return validation(
        f"The format of the value at {path} is invalid. Provide a json object for the field and try again."
    )


def tool_blocks_without_config() -> ApiError:
    return validation(
        "The toolConfig field must be defined when using toolUse and toolResult content blocks."
    )


def missing_tool_results(path: str, tool_use_ids: Sequence[str]) -> ApiError:
    return validation(
        f"Expected toolResult blocks at {path} for the following Ids: {', '.join(tool_use_ids)}"
    )


def extra_tool_results(path: str) -> ApiError:
    return validation(
        f"The number of toolResult blocks at {path} exceeds the number of toolUse blocks of previous turn."
    )


def empty_error_result(path: str) -> ApiError:
    return validation(f"The content field at {path} cannot be empty when status value is error.")


def schema_not_of_object(path: str) -> ApiError:
    return validation(f"The value at {path} must be one of the following: object.")


def duplicate_tool_name(path: str, name: str) -> ApiError:
    return validation(f"The tool name {name} at {path} is already used. Rename the tool and try again.")


def no_tool() -> ApiError:
    return validation("The toolConfig.tools field has no toolSpec. Add a tool specification and try again.")


def unknown_tool_choice(name: str) -> ApiError:
    return validation(
        f"The tool {name} at toolConfig.toolChoice.tool.name is not in toolConfig.tools. "
        "Choose a tool of the list and try again."
    )


def unusable_schema(path: str, reason: str) -> ApiError:
    return validation(f"The JSON schema at {path} is invalid: {reason}. Change the schema and try again.")


def invalid_document_name() -> ApiError:
    return validation(
        "The document file name can only contain alphanumeric characters, whitespace characters, hyphens, "
        "parentheses, and square brackets. The name can't contain more than one consecutive whitespace "
        "character. Check that the file name conforms to these restrictions and retry your request."
    )


def duplicate_document_names() -> ApiError:
    return validation(
        "Messages can't contain duplicate document names. Rename the document and retry your request."
    )


def too_many_documents(limit: int) -> ApiError:
    return validation(
        f"You can't include more than {limit} documents in a request. "
        "Remove documents and retry your request."
    )


def document_without_text() -> ApiError:
    return validation(
        "A text block must be included when using documents. Add a text block and retry your request."
    )


def document_too_large(path: str, limit: int) -> ApiError:
    return validation(
        f"The document at {path} is larger than the limit of {limit / 1_000_000:g} MB. "
        "Provide a smaller document and retry your request."
    )


def document_without_format(path: str) -> ApiError:
    return validation(
        f"The format field in the DocumentBlock object at {path} is required when the source is bytes. "
        "Add the format and retry your request."
    )


def unreadable_document(path: str, reason: str) -> ApiError:
    return validation(f"The document at {path} could not be read: {reason}")


def stop_sequences_too_long(limit: int) -> ApiError:
    return validation(
        f"The stop sequences at inferenceConfig.stopSequences have more than {limit} characters together. "
        "Remove some of them and try again."
    )


def text_with_tool_results() -> ApiError:
    return validation("Conversation blocks and tool result blocks cannot be provided in the same turn.")


def text_with_tool_uses(path: str) -> ApiError:
    return validation(f"{path}: Conversation blocks and tool use blocks cannot be provided in the same turn")


def set_by_prompt(name: str) -> ApiError:
    return validation(
        f"The {name} field can't be used with a prompt from Prompt management. Remove {name} and try again."
    )


def unknown_prompt(prompt_id: str, version: str) -> ApiError:
    return ApiError(
        Kind.RESOURCE_NOT_FOUND,
        f"Could not find version {version} of the prompt {prompt_id}. "
        "Check the prompt ARN and try your request again.",
    )


def missing_prompt_variables(names: Sequence[str]) -> ApiError:
    return validation(
        f"The prompt requires values for the following variables: {', '.join(names)}. "
        "Add them to promptVariables and try again."
    )


def text_format_with_tools() -> ApiError:
    return validation(
        "The outputConfig.textFormat field can't be used together with toolConfig. "
        "Remove one of them and try again."
    )


def max_tokens_exceeded(limit: int) -> ApiError:
    return validation(
        f"The maximum tokens you requested exceeds the model limit of {limit}. "
        f"Try again with a maximum tokens value that is lower than {limit}."
    )


def prompt_refused(reason: str) -> ApiError:
    return validation(f"{MODEL_RETURNED}{reason}")


def prompt_too_long(limit: int) -> ApiError:
    return validation(
        f"{MODEL_RETURNED}This model's maximum context length is {limit} tokens. "
        "Please reduce the length of the prompt"
    )


# -- who is calling, and what they may -------------------------------------------------------------


def missing_authentication_token() -> ApiError:
    return ApiError(Kind.MISSING_AUTHENTICATION_TOKEN, "Missing Authentication Token")


def incomplete_signature(message: str) -> ApiError:
    """The request cannot be verified at all: what it says of its signature is not in order."""
    return ApiError(Kind.INCOMPLETE_SIGNATURE, message)


def invalid_signature(message: str) -> ApiError:
    return ApiError(Kind.INVALID_SIGNATURE, message)


def signature_mismatch() -> ApiError:
    return invalid_signature(
        "The request signature we calculated does not match the signature you provided. "
        "Check your AWS Secret Access Key and signing method. "
        "Consult the service documentation for details."
    )


def unrecognized_client() -> ApiError:
    return ApiError(Kind.UNRECOGNIZED_CLIENT, "The security token included in the request is invalid.")


def expired_token() -> ApiError:
    return ApiError(Kind.EXPIRED_TOKEN, "The security token included in the request is expired")


def invalid_bearer() -> ApiError:
    return ApiError(Kind.ACCESS_DENIED, "Authentication failed: Please make sure your API Key is valid.")


def expired_bearer() -> ApiError:
    return ApiError(Kind.ACCESS_DENIED, "Bearer Token has expired")


def not_authorized(arn: str, action: str, resource: str, *, explicit: bool) -> ApiError:
    """`explicit`: some statement denies it, as against none allowing it."""
    target = "" if resource == "*" else f" on resource: {resource}"
    reason = (
        "with an explicit deny in an identity-based policy"
        if explicit
        else f"because no identity-based policy allows the {action} action"
    )
    return ApiError(
        Kind.ACCESS_DENIED, f"User: {arn} is not authorized to perform: {action}{target} {reason}"
    )


def too_many_tokens() -> ApiError:
    return ApiError(Kind.THROTTLING, "Too many tokens, please wait before trying again.")
