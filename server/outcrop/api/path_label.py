"""A part of a path that is an identifier."""

from __future__ import annotations

import re
from functools import cache

from starlette.convertors import PathConvertor, register_url_convertor

LABEL = "label"
"""For routes: `{model_id:label}` takes any text, slashes and line breaks among it. Starlette's `path` ends at
a line break, which would make an invalid identifier an unknown operation."""


class _Label(PathConvertor):
    regex = r"[\s\S]*"


register_url_convertor(LABEL, _Label())


@cache
def label_until(word: str) -> str:
    """For a label that another follows: it ends where `/word/` first comes. With labels that may end at each
    such place, a long path that is not the route's is cut in all ways before that is known."""
    name = f"{LABEL}_until_{word.replace('-', '_')}"

    class Until(PathConvertor):
        regex = rf"(?>[\s\S]*?(?=/{re.escape(word)}/))"

    register_url_convertor(name, Until())
    return name
