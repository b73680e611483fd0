"""The kinds of errors there are, and which of them a stream may carry."""

from __future__ import annotations

import enum


class Kind(enum.Enum):
    """The service's exception types: name and HTTP status."""

    VALIDATION = ("ValidationException", 400)
    SERIALIZATION = ("SerializationException", 400)
    SERVICE_QUOTA_EXCEEDED = ("ServiceQuotaExceededException", 400)
    CONFLICT = ("ConflictException", 400)
    TOO_MANY_TAGS = ("TooManyTagsException", 400)
    RESOURCE_IN_USE = ("ResourceInUseException", 400)
    MISSING_AUTHENTICATION_TOKEN = ("MissingAuthenticationTokenException", 403)
    INCOMPLETE_SIGNATURE = ("IncompleteSignatureException", 403)
    INVALID_SIGNATURE = ("InvalidSignatureException", 403)
    UNRECOGNIZED_CLIENT = ("UnrecognizedClientException", 403)
    EXPIRED_TOKEN = ("ExpiredTokenException", 403)
    ACCESS_DENIED = ("AccessDeniedException", 403)
    UNKNOWN_OPERATION = ("UnknownOperationException", 404)
    RESOURCE_NOT_FOUND = ("ResourceNotFoundException", 404)
    REQUEST_TIMEOUT = ("RequestTimeoutException", 408)
    MODEL_TIMEOUT = ("ModelTimeoutException", 408)
    ENTITY_TOO_LARGE = ("RequestEntityTooLargeException", 413)
    MODEL_ERROR = ("ModelErrorException", 424)
    MODEL_STREAM_ERROR = ("ModelStreamErrorException", 424)
    MODEL_NOT_READY = ("ModelNotReadyException", 429)
    THROTTLING = ("ThrottlingException", 429)
    INTERNAL = ("InternalServerException", 500)
    SERVICE_UNAVAILABLE = ("ServiceUnavailableException", 503)

    def __init__(self, code: str, status: int) -> None:
        self.code = code
        self.status = status

    @property
    def event_name(self) -> str:
        """The exception's name inside an event stream: lowerCamel."""
        return self.code[0].lower() + self.code[1:]


STREAMABLE = frozenset(
    {
        Kind.INTERNAL,
        Kind.MODEL_STREAM_ERROR,
        Kind.SERVICE_UNAVAILABLE,
        Kind.THROTTLING,
        Kind.VALIDATION,
    }
)
"""Exceptions that both ConverseStreamOutput and ResponseStream declare as events."""

INVOKE_STREAMABLE = STREAMABLE | {Kind.MODEL_TIMEOUT}
"""Exceptions that ResponseStream declares."""
