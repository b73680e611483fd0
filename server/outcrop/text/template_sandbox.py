"""Jinja as chat templates expect it, fenced in: no access to Python, and bounded work."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.visitor import NodeTransformer

MAX_CHARS = 1 << 25  # of the rendered text, and of any string or list a template builds on the way
_MAX_BITS = 4096  # of an integer
# What costs about as much as one loop iteration: copying so many characters, making so many numbers.
_CHARS_PER_STEP = 1024
_NUMBERS_PER_STEP = 32

_TO_ESCAPE = re.compile("[^\x00-\x7f\ufdd0-\ufdef]")

_steps_left: ContextVar[int] = ContextVar("steps left to the template that this thread renders")


class TemplateLimitError(jinja2.TemplateRuntimeError):
    """The template does more than any chat template needs to."""


def _spend(steps: int) -> None:
    left = _steps_left.get() - steps
    _steps_left.set(left)
    if left < 0:
        raise TemplateLimitError("the template takes too many steps; does it loop for ever?")


def _bounded(value: Any) -> Any:
    if isinstance(value, int):
        if value.bit_length() > _MAX_BITS:
            raise TemplateLimitError("the template computes an integer that is too large")
    elif isinstance(value, (str, list, tuple)):
        if len(value) > MAX_CHARS:
            raise TemplateLimitError("the template builds a value that is too large")
        _spend(len(value) // _CHARS_PER_STEP)
    return value


def _multiply(left: Any, right: Any) -> Any:
    for value, times in ((left, right), (right, left)):
        if (
            isinstance(value, (str, list, tuple))
            and isinstance(times, int)
            and len(value) * times > MAX_CHARS
        ):
            raise TemplateLimitError("the template builds a value that is too large")
    return left * right


def _power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > _MAX_BITS:
        raise TemplateLimitError("the template computes an integer that is too large")
    return left**right


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda left, right: left + right,
    "*": _multiply,
    "**": _power,
}


def _counted(iterable: Iterable[Any]) -> Iterator[Any]:
    for item in iterable:
        _spend(1)
        yield item


def _concatenated(values: Iterable[Any]) -> Any:
    return _bounded("".join(map(str, values)))


def _counted_range(*args: int) -> range:
    numbers = safe_range(*args)
    _spend(len(numbers) // _NUMBERS_PER_STEP)
    return numbers


class _Metering(NodeTransformer):
    """Sends every loop and every `~` of a parsed template through the meter."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        if node.recursive:
            raise jinja2.TemplateSyntaxError("recursive loops are not supported", node.lineno)
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "counted", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "concatenated", [], [], None, None, lineno=node.lineno)


class _GenerationTag(Extension):
    """`{% generation %}` marks what the model wrote, for training; here it only groups."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=lineno)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(_OPERATORS)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        _spend(1)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        return _bounded(_OPERATORS[operator](left, right))


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML; models are trained on plain JSON. Noncharacters are never escaped:
    they mark text from outside."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    return _TO_ESCAPE.sub(lambda found: json.dumps(found[0])[1:-1], text) if ensure_ascii else text


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTag]
    )
    environment.filters |= {"tojson": _tojson, "counted": _counted, "concatenated": _concatenated}
    environment.globals |= {
        "range": _counted_range,
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
    }
    del environment.globals["lipsum"]
    return environment


class SandboxedTemplate:
    """One compiled chat template, set up as `transformers` sets up its own: trimmed blocks, loop controls,
    `raise_exception`, `strftime_now`, a `tojson` that does not escape.

    Work is metered: loop iterations, calls and the size of what `+`, `*`, `**` and `~` build. So a
    template that loops without end fails instead of holding up its server. Raises jinja2.TemplateError
    if the source is not a template.

    variables: every name that the template reads, whether it sets it itself or not.
    """

    def __init__(self, source: str) -> None:
        environment = _environment()
        tree = environment.parse(source)
        self.variables = frozenset(name.name for name in tree.find_all(nodes.Name) if name.ctx == "load")
        tree = _Metering().visit(tree)
        code = environment.compile(tree)
        self._template = jinja2.Template.from_code(environment, code, environment.make_globals(None))

    def render(self, variables: Mapping[str, Any], max_steps: int) -> str:
        """Raises jinja2.TemplateError (TemplateLimitError beyond the limits), and whatever else the
        template's own expressions raise."""
        token = _steps_left.set(max_steps)
        try:
            size, chunks = 0, []
            for chunk in self._template.generate(variables):
                size += len(chunk)
                if size > MAX_CHARS:
                    raise TemplateLimitError(f"the template renders more than {MAX_CHARS} characters")
                chunks.append(chunk)
            return "".join(chunks)
        finally:
            _steps_left.reset(token)
