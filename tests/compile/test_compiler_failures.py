"""What neuronx-cc says, understood: a code, what it means, and what to do."""

from pathlib import Path

import pytest
from fake_compiler import wrapped

from outcrop_compile.builder.failures import failure_of

BUILD = "outcrop compile build --model llama"


@pytest.mark.parametrize(
    ("words", "code", "mend"),
    [
        (
            "ERROR LOWERING\n[NCC_ITEN404] Internal tensorizer error: SimplifyNeuronTensor:idx i0: <class "
            "'neuronxcc.pelican.ir.AffineIV'>",
            "NCC_ITEN404", f"{BUILD} --slots",
        ),
        ("[NCC_EVRF007] instructions: 6,012,311", "NCC_EVRF007", "--tp"),
        ("[NCC_EOOM001] The combined memory needed", "NCC_EOOM001", "--dtype int8"),
        ("[NCC_EVRF001] unsupported operator sort", "NCC_EVRF001", "outcrop compile lint"),
        ("[NCC_EVRF022] Shift-right", "NCC_EVRF022", "compiler/error-codes/EVRF022.html"),
        ("[NCC_IBIR158] internal", "NCC_IBIR158", f"{BUILD} --slots"),
        ("neuronx-cc failed with exit status -9", "F137", f"{BUILD} --workers 1"),
        ("[F137] neuronx-cc was forcibly killed", "F137", f"{BUILD} --workers 1"),
        ("No space left on device", "", "see the log"),
    ],
)  # fmt: skip
def test_what_the_compiler_says_is_explained_and_mended(
    tmp_path: Path, words: str, code: str, mend: str
) -> None:
    log = tmp_path / "decode/2026/log-neuron-cc.txt"
    log.parent.mkdir(parents=True)
    log.write_text("INFO: lowering\n")
    failed = failure_of(wrapped(words), "decode", tmp_path, BUILD)
    assert (failed.tag, failed.code, failed.log) == ("decode", code, log)
    first, *rest = str(failed).splitlines()
    assert first.startswith("decode: ")
    assert mend in first.partition("Mend it with: ")[2]
    assert rest == [f"log: {log}", f"neuronx-cc: {words.splitlines()[-1]}"]


def test_a_code_may_be_in_the_compilers_log_alone(tmp_path: Path) -> None:
    (tmp_path / "log-neuron-cc.txt").write_text("x" * 1_000_000 + "\nERROR [NCC_EOOM002] too large\n")
    assert failure_of(RuntimeError("Compilation failed"), "decode", tmp_path, BUILD).code == "NCC_EOOM002"


def test_slot_mode_is_no_mend_of_itself(tmp_path: Path) -> None:
    failed = failure_of(RuntimeError("[NCC_ITEN404]"), "decode", tmp_path, f"{BUILD} --slots")
    assert "Mend it with: the compiler of another SDK release" in str(failed)


def test_there_may_be_no_log(tmp_path: Path) -> None:
    failed = failure_of(RuntimeError("nothing"), "decode", tmp_path, BUILD)
    assert failed.log is None
    assert "log:" not in str(failed)
