"""Resources of the control plane: profiles, jobs, imported models and so on, each one row.

What clients list and filter by is in columns; the rest of a resource is one JSON document, written and read
by the operations of its kind alone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from outcrop.ledger.database import Base, Instant


class Resource(Base):
    """kind: such as `guardrail`. id: unique within the kind. token: the client's own, with which it may ask
    for the same resource again and get no second one. ended_at: of jobs. body: everything else."""

    __tablename__ = "resource"
    __table_args__ = (
        UniqueConstraint("kind", "token"),
        Index("ix_resource_kind_created_at", "kind", "created_at", "id"),
        Index("ix_resource_kind_name", "kind", "name"),
    )

    kind: Mapped[str] = mapped_column(String(40), primary_key=True)
    id: Mapped[str] = mapped_column(String(80), primary_key=True)
    arn: Mapped[str] = mapped_column(String(1024), index=True)
    name: Mapped[str] = mapped_column(String(256))
    status: Mapped[str] = mapped_column(String(40))
    token: Mapped[str | None] = mapped_column(String(256))
    created_at: Mapped[datetime] = mapped_column(Instant)
    updated_at: Mapped[datetime] = mapped_column(Instant)
    ended_at: Mapped[datetime | None] = mapped_column(Instant)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)


class Tag(Base):
    """A tag of a resource, which need not be in the table above: foundation models have none there."""

    __tablename__ = "tag"

    arn: Mapped[str] = mapped_column(String(1024), primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    value: Mapped[str] = mapped_column(String(256))
