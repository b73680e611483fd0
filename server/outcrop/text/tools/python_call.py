"""Calls written as Python writes them: `f(x=1, y="a")`."""

from __future__ import annotations

import ast
import json

_JSON_WORDS = {"true": True, "false": False, "null": None}


class _JsonWords(ast.NodeTransformer):
    """Models mix the two languages: true, false and null mean what they mean in JSON."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(_JSON_WORDS[node.id]) if node.id in _JSON_WORDS else node


def python_arguments(inside: str) -> str | None:
    """The JSON text of the arguments between a call's parentheses, None unless they are all keyword
    arguments with literal values that JSON knows."""
    try:
        call = ast.parse(f"f({inside})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            return None
        arguments = {
            keyword.arg: ast.literal_eval(_JsonWords().visit(keyword.value)) for keyword in call.keywords
        }
        return None if None in arguments else json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None
