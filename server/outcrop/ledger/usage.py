"""Usage: what each generation took, for bills and comparisons. Nothing of what was said."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Float, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from outcrop.ledger.database import Base, Instant


class Usage(Base):
    """One generation. request_id: that of its HTTP answer, with -0, -1 … behind it where one request asked
    for several. at: when it ended. input_tokens: of the whole prompt; cached_tokens: those of them that the
    prefix cache had. outcome: stop, length, abort (the client went away) or error. latency_ms: from the
    request to its end; first_token_ms: to its first token, None if there was none."""

    __tablename__ = "usage"
    __table_args__ = (Index("ix_usage_at", "at"),)

    request_id: Mapped[str] = mapped_column(String(120), primary_key=True)
    at: Mapped[datetime] = mapped_column(Instant)
    tenant: Mapped[str] = mapped_column(String(256))
    model: Mapped[str] = mapped_column(String(2048))
    input_tokens: Mapped[int] = mapped_column(Integer)
    cached_tokens: Mapped[int] = mapped_column(Integer)
    output_tokens: Mapped[int] = mapped_column(Integer)
    latency_ms: Mapped[float] = mapped_column(Float)
    first_token_ms: Mapped[float | None] = mapped_column(Float)
    outcome: Mapped[str] = mapped_column(String(10))
