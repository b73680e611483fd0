"""Records of batch jobs: the lines of their input, each of which becomes a line of output exactly once."""

from __future__ import annotations

from sqlalchemy import Index, Integer, String, Text, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

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


def totals(session: Session, job_id: str) -> dict[str, int]:
    """Counts of a job's records and of their tokens, under the names that the service gives them."""
    query = (
        select(
            JobRecord.state,
            func.count(),
            func.sum(JobRecord.input_tokens),
            func.sum(JobRecord.output_tokens),
        )
        .where(JobRecord.job_id == job_id)
        .group_by(JobRecord.state)
    )
    found = {state: (count, read, written) for state, count, read, written in session.execute(query)}
    good, bad = found.get(SUCCESS, (0, 0, 0)), found.get(ERROR, (0, 0, 0))
    return {
        "totalRecordCount": sum(count for count, _, _ in found.values()),
        "processedRecordCount": good[0] + bad[0],
        "successRecordCount": good[0],
        "errorRecordCount": bad[0],
        "inputTokenCount": good[1] + bad[1],
        "outputTokenCount": good[2] + bad[2],
    }
