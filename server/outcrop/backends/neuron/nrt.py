"""What the Neuron runtime's status codes mean for requests, for the engine and for the machine.

Codes and names are those of libnrt's `nrt_status.h` (aws-neuron-sdk, src/libnrt/include/nrt); what to do
about hardware errors follows AWS's runtime troubleshooting guide (neuron-runtime/nrt-troubleshoot.rst).
torch-neuronx raises them as `RuntimeError: Failed to execute the model status=1003 message=Numerical Error`.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from outcrop.engine.frames import Drain

_STATUS = re.compile(r"\bstatus=(\d+)")


class Effect(enum.Enum):
    """What a failed execution leads to."""

    RETRY = enum.auto()
    """The step was not accepted, and is submitted again; nobody notices."""
    FAIL_ROWS = enum.auto()
    """The step ran. Its rows that hold NaN or Inf fail, the others and the engine go on."""
    FAIL_STEP = enum.auto()
    """The step did not run, and the device is as it was. Its requests fail, the engine goes on."""
    RESTART = enum.auto()
    """The device's state is unknown: the engine process ends and is started again. Requests are submitted
    again and their streams go on; one that is in two such crashes without progress is refused."""
    DRAIN = enum.auto()
    """The hardware is not to be trusted: the engine process ends and stays down, its requests fail as
    unavailable, and the server's readiness turns false with the reason."""


@dataclass(frozen=True, slots=True)
class NrtStatus:
    """One code. effect: when a step fails with it. repeated: instead, when it goes on happening (three steps
    in a row for FAIL_STEP, the third engine in ten minutes for RESTART). advice: for the operator."""

    code: int
    name: str
    meaning: str
    effect: Effect
    repeated: Effect | None = None
    advice: str = ""

    def __str__(self) -> str:
        advice = f"; {self.advice}" if self.advice else ""
        return f"NRT_{self.name} ({self.code}): {self.meaning}{advice}"


_REPLACE = "replace the instance: terminate it, or stop and start it"
_MEMORY = (
    "the runtime has written neuron_mem_table_device_*.log to its working directory; build with fewer or "
    "smaller buckets, or a shorter --max-model-len (`outcrop compile plan` shows what fits)"
)
_OTHER_OWNER = (
    "another process has these NeuronCores: `neuron-ls` shows which; end it, or choose other --cores"
)
_OUR_BUG = "this is a defect of Outcrop: please report it with the log"

_TABLE = (
    NrtStatus(1, "FAILURE", "the runtime failed for no stated reason", Effect.RESTART),
    NrtStatus(
        2, "INVALID", "the runtime refused the call", Effect.FAIL_STEP, Effect.RESTART, _OUR_BUG
    ),
    NrtStatus(
        3, "INVALID_HANDLE", "the runtime does not know the model", Effect.FAIL_STEP, Effect.RESTART, _OUR_BUG
    ),
    NrtStatus(4, "RESOURCE", "the device's memory is exhausted", Effect.RESTART, advice=_MEMORY),
    NrtStatus(
        5, "TIMEOUT", "a step did not end in time (NEURON_RT_EXEC_TIMEOUT)", Effect.RESTART, Effect.DRAIN
    ),
    NrtStatus(6, "HW_ERROR", "the hardware failed", Effect.DRAIN, advice=_REPLACE),
    NrtStatus(7, "QUEUE_FULL", "the execution queue is full", Effect.RETRY, Effect.RESTART),
    NrtStatus(
        9, "LOAD_NOT_ENOUGH_NC", "not enough NeuronCores to load", Effect.RESTART, advice=_OTHER_OWNER
    ),
    NrtStatus(
        10, "UNSUPPORTED_NEFF_VERSION", "the runtime is of another age than the artifact", Effect.RESTART,
        advice="install the runtime of the SDK named in its manifest, or build it again with this one",
    ),
    NrtStatus(
        11, "FAIL_HOST_MEM_ALLOC", "the host's memory is exhausted", Effect.RESTART,
        advice="give the server more memory; `outcrop compile plan` says how much a model takes",
    ),
    NrtStatus(13, "UNINITIALIZED", "the runtime is not initialised", Effect.RESTART),
    NrtStatus(14, "CLOSED", "the runtime is closed", Effect.RESTART),
    NrtStatus(15, "QUEUE_EMPTY", "the runtime read an empty queue", Effect.RESTART),
    NrtStatus(
        101, "EXEC_UNIT_UNRECOVERABLE", "the execution unit is in limbo", Effect.RESTART, Effect.DRAIN,
        _REPLACE,
    ),
    NrtStatus(
        1002, "EXEC_BAD_INPUT", "the graph got a wrong input", Effect.FAIL_STEP, Effect.RESTART, _OUR_BUG
    ),
    NrtStatus(1003, "EXEC_COMPLETED_WITH_NUM_ERR", "a step produced NaN", Effect.FAIL_ROWS),
    NrtStatus(1004, "EXEC_COMPLETED_WITH_ERR", "a step ended with an error", Effect.RESTART),
    NrtStatus(1005, "EXEC_NC_BUSY", "the NeuronCore is in use", Effect.RESTART, advice=_OTHER_OWNER),
    NrtStatus(
        1006, "EXEC_OOB", "an index was out of bounds, so the KV cache may be damaged", Effect.RESTART,
        advice=f"{_OUR_BUG}; NEURON_RT_DBG_DUMP_INPUTS_ON_ERR=1006 keeps the inputs",
    ),
    NrtStatus(1100, "COLL_PENDING", "a collective is still pending", Effect.RETRY, Effect.RESTART),
    NrtStatus(
        1200, "EXEC_HW_ERR_COLLECTIVES", "a collective hung: another NeuronCore died", Effect.RESTART,
        Effect.DRAIN, _REPLACE,
    ),
    NrtStatus(
        1201, "EXEC_HW_ERR_HBM_UE", "uncorrectable error of device memory", Effect.DRAIN, advice=_REPLACE
    ),
    NrtStatus(
        1202, "EXEC_HW_ERR_NC_UE", "parity error in a NeuronCore", Effect.DRAIN, advice=_REPLACE
    ),
    NrtStatus(1203, "EXEC_HW_ERR_DMA_ABORT", "a DMA engine failed", Effect.DRAIN, advice=_REPLACE),
    NrtStatus(
        1204, "EXEC_SW_NQ_OVERFLOW", "the notification queue overflowed", Effect.RESTART,
        advice="set NEURON_RT_ENABLE_DGE_NOTIFICATIONS=0",
    ),
    NrtStatus(
        1205, "EXEC_HW_ERR_REPAIRABLE_HBM_UE", "repairable error of device memory", Effect.DRAIN,
        advice="reload the driver (sudo rmmod neuron; sudo modprobe neuron) or reboot, which repairs it",
    ),
    NrtStatus(1206, "NETWORK_PROXY_FAILURE", "the network proxy failed", Effect.RESTART),
)  # fmt: skip

STATUSES = {status.code: status for status in _TABLE}
"""Every code that an execution or a load can end with."""

UNKNOWN = NrtStatus(-1, "UNKNOWN", "an error without a known status", Effect.RESTART)
"""Of errors that have no code, or one that this table has not."""


def status_of(error: BaseException) -> NrtStatus:
    """The status that an error of torch-neuronx carries in its text."""
    match = _STATUS.search(str(error))
    return STATUSES.get(int(match[1]), UNKNOWN) if match else UNKNOWN


def drain_of(status: NrtStatus) -> Drain:
    """Whether an engine that ended with this status stays down."""
    if status.effect is Effect.DRAIN:
        return "now"
    return "repeated" if status.repeated is Effect.DRAIN else "never"
