"""Every table, for the migrations: a module that defines some is imported here."""

from __future__ import annotations

from outcrop.ledger import allowance, api_key, job_record, lease, resource, usage
from outcrop.ledger.database import Base

__all__ = ["METADATA", "allowance", "api_key", "job_record", "lease", "resource", "usage"]

METADATA = Base.metadata
