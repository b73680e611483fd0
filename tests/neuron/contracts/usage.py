"""What our own source uses of the Neuron SDK and of vLLM, found in its syntax."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .contract import Contract

PACKAGES = ("torch_neuronx", "neuronx_distributed", "libneuronxla", "transformers_neuronx", "vllm")
FOLDERS = ("compile", "server", "kernels")
_PROTOBUF = ("SerializeToString", "ParseFromString")
"""Its own methods, with arguments of its own."""


@dataclass(frozen=True)
class Use:
    """A name of the SDK, and the arguments it is given; where: file and line."""

    name: str
    arguments: frozenset[str]
    where: str


def uses(root: Path, contract: Contract) -> list[Use]:
    """Of all files below the root's source folders that import a package of the SDK."""
    found: list[Use] = []
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            tree = ast.parse(path.read_text())
            if any(True for _ in _imports(tree)):
                found += _File(path.relative_to(root).as_posix(), tree, contract).uses()
    return found


def _imports(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        if any(name.split(".")[0] in PACKAGES for name in names):
            yield node


class _File:
    """Follows what is imported through assignments, calls, attributes and subscripts, scope by scope."""

    def __init__(self, name: str, tree: ast.Module, contract: Contract) -> None:
        self.name, self.tree, self.contract = name, tree, contract
        self.found: list[Use] = []

    def uses(self) -> list[Use]:
        self._body(self.tree, {})
        return self.found

    def _body(self, scope: ast.AST, known: dict[str, str]) -> None:
        """In the order of the text, so that names are known before they are used."""
        known = dict(known)
        for node in ast.iter_child_nodes(scope):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self._body(node, known)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self._import(node, known)
            elif isinstance(node, ast.stmt):
                self._statement(node, known)

    def _statement(self, node: ast.stmt, known: dict[str, str]) -> None:
        for field in ast.iter_child_nodes(node):
            if isinstance(field, ast.Import | ast.ImportFrom):
                self._import(field, known)
            elif isinstance(field, ast.stmt):
                self._statement(field, known)
            elif not isinstance(field, ast.expr_context):
                self._expressions(field, known)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = self._value(node.value, known)
            if value:
                known[node.targets[0].id] = value

    def _import(self, node: ast.Import | ast.ImportFrom, known: dict[str, str]) -> None:
        for alias in node.names:
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            if (module + alias.name).split(".")[0] in PACKAGES:
                known[alias.asname or alias.name] = module + alias.name
                self._note(module + alias.name, (), node)

    def _expressions(self, node: ast.AST, known: dict[str, str]) -> None:
        if isinstance(node, ast.Call) and (function := self._value(node.func, known)):
            entry = self.contract.names.get(function)
            names = entry.arguments if entry else ()
            positional = names[: len(node.args)] + ("?",) * (len(node.args) - len(names))
            keywords = [keyword.arg for keyword in node.keywords if keyword.arg]
            if function.rpartition(".")[2] not in _PROTOBUF:
                self._note(function, (*positional, *keywords), node)
        if isinstance(node, ast.Attribute) and (name := self._value(node, known)):
            self._note(name, (), node)
        for child in ast.iter_child_nodes(node):
            self._expressions(child, known)

    def _value(self, node: ast.AST, known: dict[str, str]) -> str | None:
        """The SDK's name of what an expression is, if it is anything of the SDK."""
        if isinstance(node, ast.expr) and (held := self.contract.held.get((self.name, ast.unparse(node)))):
            return held
        match node:
            case ast.Name():
                return known.get(node.id)
            case ast.Attribute():
                owner = self._value(node.value, known)
                return f"{owner}.{node.attr}" if owner else None
            case ast.Call():
                return self._inside(self._value(node.func, known))
            case ast.Subscript():
                return self._inside(self._value(node.value, known))
        return None

    def _inside(self, name: str | None) -> str | None:
        """What a call or a subscript of it gives; a class gives an instance, whose names are the class's."""
        entry = self.contract.names.get(name or "")
        if entry is None:
            return None
        is_class = name is not None and name.rpartition(".")[2][:1].isupper()
        return entry.value or (name if is_class else None)

    def _note(self, name: str, arguments: tuple[str, ...], node: ast.AST) -> None:
        where = f"{self.name}:{getattr(node, 'lineno', 0)}"
        self.found.append(Use(name, frozenset(arguments), where))
