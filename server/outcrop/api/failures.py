"""Exceptions that reach the edge of the API: how each is answered, and what is written down of it."""

from __future__ import annotations

import logging
import traceback

from outcrop.api import errors
from outcrop.api.errors import ApiError
from outcrop.catalog.catalog import UnknownModel
from outcrop.engine.client import EngineUnavailable, ModelFailure
from outcrop.ledger.connect import AWAY, reason_of

logger = logging.getLogger(__name__)


def from_exception(exc: BaseException) -> ApiError:
    """The answer to any exception; one this API did not foresee becomes InternalServerException."""
    match exc:
        case ApiError():
            return exc
        case UnknownModel():
            return errors.invalid_model_identifier()
        case EngineUnavailable():
            return errors.service_unavailable()
        case ModelFailure():
            return errors.model_error()
        case _ if isinstance(exc, AWAY):
            return errors.service_unavailable()
        case _:
            return errors.internal_error()


def log_unexpected(exc: BaseException, request_id: str) -> None:
    """Record what became an InternalServerException, or an engine's failure.

    Only the type and the place of an unforeseen exception are logged: its message may quote the prompt.
    """
    match exc:
        case ApiError() | UnknownModel():
            pass
        case EngineUnavailable() | ModelFailure():
            logger.warning("request %s: %s: %s", request_id, type(exc).__name__, exc)
        case _ if isinstance(exc, AWAY):
            logger.error("request %s: the database is away: %s", request_id, reason_of(exc))
        case _:
            frames = "".join(traceback.format_tb(exc.__traceback__))
            logger.error("request %s: unexpected %s\n%s", request_id, type(exc).__name__, frames)
