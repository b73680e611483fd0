"""Sums of usage, for bills."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from outcrop.ledger.connect import DatabaseError, connect, reason_of
from outcrop.ledger.usage import Usage


@dataclass(frozen=True, slots=True)
class UsageSum:
    """Of one tenant and model. input_tokens: of whole prompts; cached_tokens: those of them that the prefix
    cache had. unfinished: generations that failed or whose client went away; what they took is in the
    sums."""

    tenant: str
    model: str
    requests: int
    unfinished: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    mean_latency_ms: float


WINDOW = timedelta(minutes=5)
"""What Bedrock bills a running copy of an imported model by."""


@contextmanager
def reading(state: str) -> Iterator[Session]:
    """A session that only reads a server's database, which goes on writing meanwhile: a transaction of
    `Database` would hold its answers up. state: as of `Database`. Raises DatabaseError."""
    engine = connect(state)
    try:
        with Session(engine) as session:
            yield session
    except SQLAlchemyError as error:
        raise DatabaseError(f"usage cannot be read: {reason_of(error)}") from error
    finally:
        engine.dispose()


def sum_usage(
    session: Session,
    since: datetime,
    until: datetime,
    *,
    tenant: str | None = None,
    model: str | None = None,
) -> Sequence[UsageSum]:
    """Generations that ended from `since` to before `until`, the largest sums first."""
    unfinished = func.sum(Usage.outcome.in_(("abort", "error")).cast(Usage.input_tokens.type))
    query = (
        select(
            Usage.tenant,
            Usage.model,
            func.count(),
            unfinished,
            func.sum(Usage.input_tokens),
            func.sum(Usage.cached_tokens),
            func.sum(Usage.output_tokens),
            func.avg(Usage.latency_ms),
        )
        .where(Usage.at >= since, Usage.at < until)
        .group_by(Usage.tenant, Usage.model)
        .order_by(func.sum(Usage.input_tokens + Usage.output_tokens).desc())
    )
    if tenant is not None:
        query = query.where(Usage.tenant == tenant)
    if model is not None:
        query = query.where(Usage.model == model)
    return [UsageSum(*row) for row in session.execute(query)]


def count_windows(
    session: Session, since: datetime, until: datetime, model: str, *, tenant: str | None = None
) -> int:
    """Windows of five minutes that one copy of an imported model would have been billed for: each begins with
    the first answer after the one before."""
    query = (
        select(Usage.at)
        .where(Usage.at >= since, Usage.at < until, Usage.model == model, Usage.outcome != "error")
        .order_by(Usage.at)
    )
    if tenant is not None:
        query = query.where(Usage.tenant == tenant)
    windows, end = 0, since
    for at in session.scalars(query, execution_options={"yield_per": 10_000}):
        if at >= end:
            windows, end = windows + 1, at + WINDOW
    return windows
