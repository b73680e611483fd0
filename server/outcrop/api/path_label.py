"""A part of a path that is an identifier."""

from __future__ import annotations

from starlette.convertors import PathConvertor, register_url_convertor

LABEL = "label"
"""For routes: `{model_id:label}` takes any text, slashes and line breaks among it. Starlette's `path` ends at
a line break, which would make an invalid identifier an unknown operation."""


class _Label(PathConvertor):
    regex = r"[\s\S]*"


register_url_convertor(LABEL, _Label())
