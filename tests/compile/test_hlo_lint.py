"""The linter: every bad graph is caught by the rule that it breaks, the model's own graphs by none."""

import json
import shutil
from pathlib import Path

import msgspec
import pytest
from hlo_builder import Builder
from typer.testing import CliRunner, Result

from outcrop.cli.main import app
from outcrop_compile.hlo.module import HloModule
from outcrop_compile.hlo.record import read_record, record_path
from outcrop_compile.hlo.wire import Message
from outcrop_compile.hlo_lint.finding import CHECKS
from outcrop_compile.hlo_lint.linter import LintError, lint_directory, lint_file, lint_module
from outcrop_compile.hlo_lint.rules import RULES

FOLDER = Path(__file__).parent
BAD = sorted((FOLDER / "bad_graphs").glob("*.hlo.pb"))
LOWERED = sorted((FOLDER / "lowered").rglob("*.hlo.pb"))
ALSO = {
    # torch_xla widens the indices of these, and seeds its generator with a constant.
    "element-scatter": {"s64-bulk"},
    "short-gather": {"s64-bulk"},
    "rng": {"u64-constant"},
    "instructions": {"memory"},
}
BETWEEN = {"graphs-per-step", "mixed-versions"}
"""Rules on a directory, whose breaches need several graphs."""


def lint(*options: str | Path) -> Result:
    return CliRunner().invoke(app, ["compile", "lint", *map(str, options)])


def broken(path: Path) -> str:
    return path.name.removesuffix(".hlo.pb").partition(".")[0]


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.name.removesuffix(".hlo.pb"))
def test_a_bad_graph_is_caught_by_the_rule_that_it_breaks(path: Path) -> None:
    rule = broken(path)
    findings = lint_file(path)
    assert {one.rule.id for one in findings} == {rule} | ALSO.get(rule, set())
    for one in findings:
        assert one.detail
        assert one.instruction or one.rule.id == "memory"


def test_every_rule_has_its_check_and_its_bad_graph() -> None:
    assert len(BAD) >= 20
    assert CHECKS.keys() == RULES.keys() - BETWEEN
    assert {broken(path) for path in BAD} == CHECKS.keys()


@pytest.mark.parametrize("path", LOWERED, ids=lambda path: f"{path.parent.name} {path.name}")
def test_the_models_own_graphs_break_none(path: Path) -> None:
    assert lint_file(path) == []
    module = HloModule(path.read_bytes())
    opcodes = {one.opcode for one in module.entry.instructions}
    assert not opcodes & {"sort", "rng", "rng-bit-generator", "while", "call"}
    for one in module.entry.instructions:
        if one.opcode == "scatter" and len(one.shape.dimensions) > 1:
            assert one.message.message(48).integers(1), f"{one} is one of elements"
        elif one.opcode == "scatter":
            assert one.shape.elements == 9, f"{one} is not the token table, a token a row"
        for shape in one.shape.leaves():
            assert shape.type != "f64"
            assert shape.type != "s64" or shape.elements <= 32, f"{one} is bulk"


@pytest.mark.parametrize("path", LOWERED, ids=lambda path: f"{path.parent.name} {path.name}")
def test_a_state_whose_alias_is_taken_away_is_missed(path: Path) -> None:
    record, module = read_record(record_path(path)), Message(path.read_bytes())
    states = {place for place, one in enumerate(record.outputs) if one.alias is not None}
    assert HloModule(module.dump()).aliases == {place: record.outputs[place].alias for place in states}
    module.remove(8)
    findings = list(lint_module(HloModule(module.dump())))
    assert [one.rule.id for one in findings] == ["not-aliased"] * len(states)
    assert "layers.0.key_pool" in " ".join(one.detail for one in findings)


def test_an_alias_with_another_state_is_as_bad_as_none() -> None:
    build = Builder()
    pools = [build.parameter("bf16", 40, 64) for _ in range(2)]
    slots, rows = build.parameter("s32", 3, 1), build.parameter("bf16", 3, 64)
    results = []
    for pool in pools:
        results.append(build.op("scatter", (pool, slots, rows), "bf16", 40, 64))
        dimensions = Message()
        dimensions.set_integers(1, (1,))
        build.instructions[-1].set_messages(48, [dimensions])
    build.aliases = {0: 1, 1: 0}
    findings = list(lint_module(build.module(*results)))
    assert [one.rule.id for one in findings] == ["not-aliased"] * 2


def test_a_maximum_may_start_from_minus_infinity_and_a_mean_have_its_empty_case() -> None:
    """softmax and mean lower to these in every graph that AWS runs."""
    build = Builder()
    x, infinity = build.parameter("f32", 8, 64), build.op("constant", (), "f32")
    content = Message()
    content.set_octets(8, b"\x00\x00\x80\xff")
    build.instructions[-1].set_messages(8, [content])
    module = build.module(build.op("reduce", (x, infinity), "f32", 8))
    assert list(lint_module(module)) == []


def test_two_graphs_of_one_step_and_graphs_of_two_versions(tmp_path: Path) -> None:
    source = LOWERED[0]
    for name in ("one", "two"):
        shutil.copy(source, tmp_path / f"{name}.hlo.pb")
        shutil.copy(record_path(source), tmp_path / f"{name}.json")
    *_, (_, between) = lint_directory(tmp_path)
    assert [one.rule.id for one in between] == ["graphs-per-step"]
    record = read_record(tmp_path / "two.json")
    newer = msgspec.structs.replace(record, versions=record.versions | {"torch_xla": "2.10.0"})
    (tmp_path / "two.json").write_bytes(newer.dump())
    *_, (_, between) = lint_directory(tmp_path)
    assert [one.rule.id for one in between] == ["graphs-per-step", "mixed-versions"]
    assert "2.10.0" in between[1].detail


def test_json_that_is_something_else_beside_a_graph_is_left_alone(tmp_path: Path) -> None:
    shutil.copy(LOWERED[0], tmp_path / "graph.hlo")
    (tmp_path / "graph.json").write_text('{"who": "knows"}')
    assert [len(found) for _, found in lint_directory(tmp_path)] == [0, 0]


def test_the_command_says_where_what_and_what_instead() -> None:
    done = lint(FOLDER / "bad_graphs")
    assert done.exit_code == 1
    text = done.stdout
    assert "sort.topk.hlo.pb: error: sort (NCC_EUOC002, NCC_EVRF001)" in text
    assert "mend: AwsNeuronTopK on float32 rows" in text
    assert f"{len(BAD)} modules" in text
    clean = lint(FOLDER / "lowered")
    assert clean.exit_code == 0
    assert clean.stdout == f"{len(LOWERED)} modules, 0 findings\n"


def test_the_command_in_json_and_with_rules_left_out() -> None:
    done = lint(FOLDER / "bad_graphs", "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 1
    assert found["modules"] == len(BAD)
    assert {one["rule"] for one in found["findings"]} == CHECKS.keys()
    one = next(one for one in found["findings"] if one["rule"] == "custom-call")
    assert one["codes"] == ["EVRF015"]
    assert one["source"] == "xla__custom_call"
    every = [option for rule in RULES for option in ("--ignore", rule)]
    assert lint(FOLDER / "bad_graphs", *every).exit_code == 0


def test_what_the_command_is_given_wrongly(tmp_path: Path) -> None:
    for options, word in (
        ((), "which folder"),
        ((tmp_path / "none",), "is not a directory"),
        ((tmp_path,), "has no HLO modules"),
        ((tmp_path, "--ignore", "sorts"), "no such rule"),
    ):
        done = lint(*options)
        assert done.exit_code == 2
        assert word in done.stderr
    (tmp_path / "text.hlo").write_text("HloModule jit_f, entry_computation_layout={()->f32[]}")
    done = lint(tmp_path)
    assert done.exit_code == 2
    assert "text.hlo: not an HloModuleProto" in done.stderr
    with pytest.raises(LintError, match="expected a serialised HloModuleProto"):
        lint_file(tmp_path / "text.hlo")


def test_the_rules_are_printed() -> None:
    done = lint("--rules", "--json")
    assert {rule["id"] for rule in json.loads(done.stdout)} == RULES.keys()
    assert lint("--rules").exit_code == 0
