"""Records of batch jobs: the lines of their input, each of which becomes a line of output exactly once."""

from __future__ import annotations

from sqlalchemy import Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from outcrop.ledger.database import Base

PENDING, SUCCESS, ERROR = "pending", "success", "error"


class JobRecord(Base):
    """part: which of the job's input files; line: counted from 0 among its records. text: the input's line
    while the record is pending, and then the output's, so that neither is kept twice."""

    __tablename__ = "job_record"
    __table_args__ = (Index("ix_job_record_job_id_state", "job_id", "state"),)

    job_id: Mapped[str] = mapped_column(String(80), primary_key=True)
    part: Mapped[int] = mapped_column(Integer, primary_key=True)
    line: Mapped[int] = mapped_column(Integer, primary_key=True)
    state: Mapped[str] = mapped_column(String(10))
    text: Mapped[str] = mapped_column(Text)
    input_tokens: Mapped[int] = mapped_column(Integer, default=0)
    output_tokens: Mapped[int] = mapped_column(Integer, default=0)
