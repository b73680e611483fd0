"""What neuronx-cc says when it fails, and what to do about it.

Codes: compiler/error-codes of aws-neuron/aws-neuron-sdk, commit 81ce03ae261e, and the issues named here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CODE = re.compile(r"\bNCC_[A-Z]{4}\d{3}\b")
_KILLED = re.compile(r"\[F137\]|forcibly killed|SIGKILL|exit (?:code|status) (?:-9|137)\b")
_PAGE = "https://awsdocs-neuron.readthedocs-hosted.com/en/latest/compiler/error-codes"
_SLOTS = "--slots"
_LOG = "log-neuron-cc.txt"
_TAIL = 1 << 18  # bytes of a log that are looked at
KILLED = "F137"
"""neuronx-cc's own code for a compilation that the kernel ended, which has no number of its own."""


@dataclass(frozen=True, slots=True)
class Failure:
    """meaning: what it is. mend: what to do; `{build}` is the build's own command."""

    meaning: str
    mend: str


_SMALLER = Failure(
    "the graph unrolls to more instructions than the compiler allows",
    "build with more cores a model (--tp), a shorter --max-model-len or a smaller --batch",
)
_MEMORY = Failure(
    "the graph does not fit into a core's memory",
    "build with more cores a model (--tp), --dtype int8, a shorter --max-model-len or a smaller --batch; "
    "`outcrop compile plan --reserve SIZE` leaves the graphs more room",
)
_OPERATOR = Failure(
    "the graph has an operation that the compiler does not know",
    "`outcrop compile lint` on the graph says which; Outcrop's own should have none: please report it",
)
_TABLE = {
    # https://github.com/aws-neuron/aws-neuron-sdk/issues/1304, of neuronx-cc 2.23.
    "NCC_ITEN404": Failure(
        "this compiler cannot do paged attention",
        "{build} --slots (slot mode: a block holds a whole sequence), or the compiler of SDK 2.31.1",
    ),
    "NCC_EBVF030": _SMALLER,
    "NCC_EVRF007": _SMALLER,
    "NCC_EXTP004": _SMALLER,
    "NCC_EOOM001": _MEMORY,
    "NCC_EOOM002": _MEMORY,
    "NCC_EVRF009": _MEMORY,
    "NCC_EXSP001": _MEMORY,
    "NCC_EVRF001": _OPERATOR,
    "NCC_EUOC002": _OPERATOR,
    "NCC_EVRF065": Failure(
        "the NKI kernels were traced by another version of NKI than the compiler's",
        "install packages of one SDK release",
    ),
    # The words of neuronx-cc, which add: "This most commonly occurs due to insufficient system memory".
    KILLED: Failure(
        "the kernel ended the compiler, for want of memory on this machine",
        "{build} --workers 1 (one compilation at a time), or a machine with more memory; what is compiled "
        "already is kept",
    ),
}
_INTERNAL = Failure(
    "the compiler failed inside",
    "{build} --slots (without paged attention, the usual cause); else report it",
)
_REFUSED = Failure("the compiler refuses the graph", "see {page}")
_UNKNOWN = Failure("the compiler failed without a code", "see the log")


class CompilationFailed(RuntimeError):
    """A graph could not be compiled; the message says what the code means and what to do.

    tag: of the graph. code: the compiler's, or "" where it gave none. log: its file, if there is one.
    """

    def __init__(self, tag: str, code: str, words: str, log: Path | None, build: str) -> None:
        failure = _TABLE.get(code)
        if failure is None:
            failure = _UNKNOWN if not code else _INTERNAL if code.startswith("NCC_I") else _REFUSED
        mend = failure.mend
        if _SLOTS in mend and _SLOTS in build:
            mend = "the compiler of another SDK release; else report it"
        page = f"{_PAGE}/{code.removeprefix('NCC_')}.html"
        mend = mend.format(build=build, page=page)
        super().__init__(
            f"{tag}: {failure.meaning}{f' ({code})' if code else ''}. Mend it with: {mend}"
            + (f"\nlog: {log}" if log else "")
            + (f"\nneuronx-cc: {words}" if words else "")
        )
        self.tag, self.code, self.log = tag, code, log


def failure_of(error: BaseException, tag: str, folder: Path, build: str) -> CompilationFailed:
    """What an exception of `Compiler.compile` means. folder: where the compiler worked. build: the command
    that is to be given again."""
    logs = sorted(folder.rglob(_LOG), key=lambda path: path.stat().st_mtime)
    log = logs[-1] if logs else None
    lines = [*_lines(error), *(_tail(log) if log else ())]
    for line in lines:
        if match := _CODE.search(line):
            return CompilationFailed(tag, match[0], line.strip(), log, build)
    for line in lines:
        if _KILLED.search(line):
            return CompilationFailed(tag, KILLED, line.strip(), log, build)
    return CompilationFailed(tag, "", lines[0].strip() if lines else "", log, build)


def _lines(error: BaseException) -> Iterator[str]:
    """Of an exception and its causes, the innermost first: NxD wraps what the compiler said."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    for each in reversed(chain):
        yield from str(each).splitlines()


def _tail(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        return file.read().decode("utf-8", "replace").splitlines()
