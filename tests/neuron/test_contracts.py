"""What our source uses of the Neuron SDK and of vLLM is listed, and the list's check finds what a source
contradicts."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def test_everything_that_is_used_is_listed() -> None:
    from tests.neuron.contracts.contract import read
    from tests.neuron.contracts.usage import uses

    contract = read()
    found = uses(ROOT, contract)
    assert {use.where.partition(":")[0] for use in found} == {
        "compile/outcrop_compile/builder/compiler.py",
        "server/outcrop/backends/neuron/runtime.py",
        "server/outcrop/backends/transformers_neuronx/model.py",
        "server/outcrop/backends/vllm/engine.py",
        "server/outcrop/backends/vllm/replay.py",
    }
    unknown = [f"{use.where}: {use.name}" for use in found if use.name not in contract.names]
    assert unknown == []
    wrong = [
        f"{use.where}: {use.name}({argument})"
        for use in found
        for argument in use.arguments - set(contract.names[use.name].arguments)
    ]
    assert wrong == []


def test_everything_that_is_listed_is_used() -> None:
    from tests.neuron.contracts.contract import read
    from tests.neuron.contracts.usage import uses

    contract = read()
    given: dict[str, set[str]] = {}
    for use in uses(ROOT, contract):
        given.setdefault(use.name, set()).update(use.arguments)
    # What is handed to the model as a function is called there, with a tensor.
    passed = {name for name in contract.names if ".mappings." in name}
    # The runtime forbids it in one loop with that of trace.functions, which stands for both.
    passed |= {"libneuronxla.neuron_xla_compile"}
    for name, entry in contract.names.items():
        assert name in given or name in passed, name
        assert name in passed or given.get(name, set()) == set(entry.arguments), name


def test_words_that_are_listed_are_ours_too() -> None:
    from tests.neuron.contracts.contract import read

    texts = read().texts
    sources = {"transformers-neuronx", "optimum-neuron", "vllm-neuron", "vllm", "sdk"}
    assert {text.source for text in texts} == sources
    for text in texts:
        content = (ROOT / text.user).read_text()
        assert [word for word in text.words if word not in content] == [], text.user


SOURCE = """
import libx
from libx.deep import helper
class Builder:
    def __init__(self, model, *, extra=None):
        self.kept: dict = {}
    def trace(self, args=None, kwargs=None):
        helper(kwargs, size=1, mode="a")
def make(world, /, rank): ...
class Settings:
    def __init__(self, **kwargs):
        self.rows = kwargs.pop("rows") if "rows" in kwargs else 1
@dataclass
class Pair:
    left: int
def use(flat):
    Pair(1, left=flat.layout)
"""
LIST = """
[sources.x]
repository = "a/x"
commit = "0"
release = "1"
[[names]]
name = "x.Builder"
arguments = ["model", "extra"]
source = "x"
path = "x/builder.py"
definition = "Builder"
exported = "x/__init__.py"
[[names]]
name = "x.Builder.trace"
arguments = ["kwargs"]
source = "x"
path = "x/builder.py"
definition = "Builder.trace"
[[names]]
name = "x.Builder.kept"
source = "x"
path = "x/builder.py"
definition = "Builder.kept"
[[names]]
name = "x.make"
arguments = ["world"]
source = "x"
path = "x/builder.py"
definition = "make"
[[names]]
name = "x.Settings"
arguments = ["rows"]
source = "x"
path = "x/builder.py"
definition = "Settings"
[[names]]
name = "x.Pair"
arguments = ["left"]
source = "x"
path = "x/builder.py"
definition = "Pair"
[[names]]
name = "x.pair"
arguments = ["first", "left"]
source = "x"
path = "x/builder.py"
caller = "Pair"
places = 1
[[names]]
name = "x.flat.layout"
source = "x"
path = "x/builder.py"
reader = "flat.layout"
[[texts]]
source = "x"
path = "x/builder.py"
user = "ours.py"
words = ["kwargs.pop"]
[[names]]
name = "libx.deep.helper"
arguments = ["size"]
source = "x"
path = "x/builder.py"
caller = "helper"
[[names]]
name = "libx.deep"
source = "x"
path = "x/builder.py"
importer = "libx.deep.helper"
[[names]]
name = "libx"
source = "x"
path = "x/builder.py"
importer = "libx"
"""


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("", "", None),
        ("self, model,", "self, module,", "x.Builder: x/builder.py: Builder has no argument model"),
        ("extra=None", "other=None", "x.Builder: x/builder.py: Builder has no argument extra"),
        ("def trace", "def follow", "x.Builder.trace: x/builder.py has no Builder.trace"),
        ("kwargs=None", "inputs=None", "x.Builder.trace: x/builder.py: Builder.trace has no argument kwargs"),
        ("self.kept", "self.lost", "x.Builder.kept: x/builder.py has no Builder.kept"),
        ("def make(world", "def make(size", "x.make: x/builder.py: make has no argument world"),
        ('pop("rows")', 'pop("lines")', "x.Settings: x/builder.py: Settings has no argument rows"),
        ("left: int", "right: int", "x.Pair: x/builder.py: Pair has no argument left"),
        ("1, left=", "right=", "x.pair: x/builder.py does not call Pair with first, left"),
        ("flat.layout", "flat.order", "x.flat.layout: x/builder.py does not read flat.layout"),
        ("kwargs.pop", "kwargs. pop", "x/builder.py has no kwargs.pop"),
        ("size=1, ", "", "libx.deep.helper: x/builder.py does not call helper with size"),
        (
            "libx.deep import",
            "libx.shallow import",
            "libx.deep: x/builder.py does not import libx.deep.helper",
        ),
        ("import libx\n", "", "libx: x/builder.py does not import libx"),
    ],
)
def test_what_a_source_does_not_bear_out_is_named(
    tmp_path: Path, old: str, new: str, problem: str | None
) -> None:
    from tests.neuron.contracts.contract import check, read

    (tmp_path / "list.toml").write_text(LIST)
    (tmp_path / "x").mkdir()
    (tmp_path / "x/__init__.py").write_text("from .builder import Builder\n")
    (tmp_path / "x/builder.py").write_text(SOURCE.replace(old, new) if old else SOURCE)
    problems = check(read(tmp_path / "list.toml"), "x", tmp_path)
    assert problems == ([problem] if problem else [])


def test_an_export_and_a_file_that_are_gone(tmp_path: Path) -> None:
    from tests.neuron.contracts.contract import check, read

    (tmp_path / "list.toml").write_text(LIST)
    (tmp_path / "x").mkdir()
    (tmp_path / "x/__init__.py").touch()
    (tmp_path / "x/builder.py").write_text(SOURCE)
    contract = read(tmp_path / "list.toml")
    assert check(contract, "x", tmp_path) == ["x.Builder: x/__init__.py does not export Builder"]
    (tmp_path / "x/builder.py").unlink()
    assert len(check(contract, "x", tmp_path)) == len(contract.names) + len(contract.texts)


def test_the_command_says_what_came_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.neuron.contracts.__main__ import main

    monkeypatch.setattr(sys, "argv", ["contracts", "--checkout", str(tmp_path)])
    assert main() == 1
    out = capsys.readouterr().out
    assert "neuronx_distributed.ModelBuilder: " in out
    assert out.splitlines()[-1].startswith("35 names, 35 arguments and 0 words of ")
