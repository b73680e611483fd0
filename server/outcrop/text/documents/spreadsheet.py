"""The text of an Excel workbook, old (xls) and new (xlsx)."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator

from python_calamine import CalamineWorkbook


def workbook_text(data: bytes) -> Iterator[str]:
    """Each sheet under its name: a line for each row, cells apart by tabs. Values of formulas as they were
    saved."""
    workbook = CalamineWorkbook.from_filelike(io.BytesIO(data))
    for index, name in enumerate(workbook.sheet_names):
        yield ("\n# " if index else "# ") + f"{name}\n"
        for row in workbook.get_sheet_by_index(index).to_python():
            yield "\t".join(map(_cell, row)).rstrip("\t") + "\n"


def _cell(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value).replace("\t", " ").replace("\n", " ")
