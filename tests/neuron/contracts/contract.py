"""The list of what Outcrop uses of the Neuron SDK and of other engines' packages, read and checked against a
checkout of their source."""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIST = Path(__file__).with_name("names.toml")


@dataclass(frozen=True)
class Source:
    repository: str
    commit: str
    release: str


@dataclass(frozen=True)
class Name:
    """One entry of names.toml, which says what its fields mean."""

    name: str
    source: str
    path: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    definition: str | None = None
    exported: str | None = None
    caller: str | None = None
    importer: str | None = None
    reader: str | None = None
    places: int = 0
    value: str | None = None
    through: tuple[str, ...] = ()


@dataclass(frozen=True)
class Text:
    """Words that are no Python names: strings that a file of the source has, and that `user`, a file of ours,
    has too."""

    source: str
    path: tuple[str, ...]
    user: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Contract:
    """held: names of what expressions of our own hold, by file and expression."""

    sources: dict[str, Source]
    names: dict[str, Name]
    texts: list[Text] = field(default_factory=list)
    held: dict[tuple[str, str], str] = field(default_factory=dict)


def read(path: Path = LIST) -> Contract:
    """Raises TypeError for fields that are none, and KeyError for those that are missing."""
    data = tomllib.loads(path.read_text())
    lists = ("arguments", "through")
    names = [
        Name(**(entry | {key: tuple(entry.get(key, ())) for key in lists} | {"path": _paths(entry)}))
        for entry in data["names"]
    ]
    found = {each.name: each for each in names}
    if len(found) != len(names):
        raise ValueError("a name is listed twice")
    for each in names:
        if each.source not in data["sources"]:
            raise KeyError(each.source)
        if [each.definition, each.caller, each.importer, each.reader].count(None) != 3:
            raise ValueError(f"{each.name}: exactly one of definition, caller, importer and reader shows it")
    return Contract(
        {key: Source(**entry) for key, entry in data["sources"].items()},
        found,
        [
            Text(**(entry | {"words": tuple(entry["words"]), "path": _paths(entry)}))
            for entry in data.get("texts", ())
        ],
        {(entry["file"], entry["expression"]): entry["value"] for entry in data.get("held", ())},
    )


def _paths(entry: dict[str, Any]) -> tuple[str, ...]:
    path = entry["path"]
    return (path,) if isinstance(path, str) else tuple(path)


def _found(checkout: Path, paths: tuple[str, ...]) -> Path:
    """The first that is there, or the first of all."""
    return next((checkout / path for path in paths if (checkout / path).exists()), checkout / paths[0])


def check(contract: Contract, source: str, checkout: Path) -> list[str]:
    """What of the list a checkout of a source does not bear out, a line each."""
    problems = []
    for name in contract.names.values():
        if name.source == source:
            problems += [f"{name.name}: {problem}" for problem in _check(name, checkout)]
    for text in contract.texts:
        if text.source == source:
            problems += _check_text(text, checkout)
    return problems


def _check_text(text: Text, checkout: Path) -> list[str]:
    path = _found(checkout, text.path)
    name = path.relative_to(checkout)
    try:
        content = path.read_text()
    except OSError as error:
        return [f"{name}: {error.strerror}"]
    return [f"{name} has no {word}" for word in text.words if word not in content]


def _check(name: Name, checkout: Path) -> list[str]:
    found = _found(checkout, name.path)
    path = found.relative_to(checkout).as_posix()
    try:
        tree = ast.parse(found.read_text())
        exports = ast.parse((checkout / name.exported).read_text()) if name.exported else None
    except OSError as error:
        return [f"{error.filename or path}: {error.strerror}"]
    last, problems = name.name.rpartition(".")[2], []
    if exports is not None and last not in _imported(exports):
        problems.append(f"{name.exported} does not export {last}")
    if name.importer is not None:
        module, _, member = name.importer.rpartition(".")
        if not (_imported(tree).get(member) == module if module else _imports(tree, member)):
            problems.append(f"{path} does not import {name.importer}")
    elif name.caller is not None:
        wanted = set(name.arguments[name.places :])
        if not any(n >= name.places and wanted <= keywords for n, keywords in _calls(tree, name.caller)):
            problems.append(f"{path} does not call {name.caller} with {', '.join(name.arguments) or '()'}")
    elif name.reader is not None:
        attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
        if not any(ast.unparse(node) == name.reader for node in attributes):
            problems.append(f"{path} does not read {name.reader}")
    elif name.definition:
        problems += [f"{path}{problem}" for problem in _defined(name, tree)]
    return problems


def _defined(name: Name, tree: ast.Module) -> list[str]:
    """Problems in words to follow a path."""
    assert name.definition is not None
    *parents, last = name.definition.split(".")
    body: list[ast.stmt] = tree.body
    for parent in parents:
        found = _named(body, parent)
        if not isinstance(found, ast.ClassDef):
            return [f" has no class {parent}"]
        body = found.body
    found = _named(body, last)
    if found is None and parents and last in _attributes(body):
        return []
    known: set[str] = set()
    if isinstance(found, ast.ClassDef) and _named(found.body, "__init__") is None:
        known = _fields(found, tree)
    elif isinstance(found, ast.ClassDef):
        found = _named(found.body, "__init__")
    if isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef):
        given = found.args
        known = {each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)} | _popped(found)
        if given.kwarg:
            known |= set(name.through)
    elif found is None:
        return [f" has no {name.definition}"]
    return [
        f": {name.definition} has no argument {argument}"
        for argument in name.arguments
        if argument not in known
    ]


def _fields(found: ast.ClassDef, tree: ast.Module) -> set[str]:
    """Those of a dataclass or the like: its annotations, and those of its bases in the same file."""
    known = _annotated(found.body)
    for base in found.bases:
        inherited = _named(tree.body, ast.unparse(base))
        if isinstance(inherited, ast.ClassDef):
            known |= _fields(inherited, tree)
    return known


def _annotated(body: list[ast.stmt]) -> set[str]:
    return {
        node.target.id
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _assigned(body: list[ast.stmt]) -> set[str]:
    return {
        target.id
        for node in body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _popped(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Arguments that it takes out of its `**kwargs` by name."""
    rest = function.args.kwarg.arg if function.args.kwarg else ""
    return {
        node.args[0].value
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == f"{rest}.pop"
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def _named(body: list[ast.stmt], name: str) -> ast.stmt | None:
    definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [each for each in body if isinstance(each, definitions) and each.name == name]
    return found[-1] if found else None


def _attributes(body: list[ast.stmt]) -> set[str]:
    """Of a class: its annotations and members of an enumeration, and those that its __init__ sets."""
    found = _annotated(body) | _assigned(body)
    for node in ast.walk(_named(body, "__init__") or ast.Module([], [])):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                found.add(target.attr)
    return found


def _imported(tree: ast.Module) -> dict[str, str]:
    """Names imported from modules, with those."""
    return {
        alias.asname or alias.name: node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _imports(tree: ast.Module, module: str) -> bool:
    return any(
        alias.name == module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    )


def _calls(tree: ast.Module, function: str) -> list[tuple[int, set[str]]]:
    """Of every call of it, how many arguments are given by their places, and the keywords of the others."""
    return [
        (len(node.args), {keyword.arg for keyword in node.keywords if keyword.arg})
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == function
    ]
