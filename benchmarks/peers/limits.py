"""What the machine can do at most at this moment, against which every result can be held.

python -m benchmarks.peers.limits

Reads memory in huge pages, and multiplies and adds in registers, with a thread on each core; then products
of matrices in torch, in bfloat16 too where the processor has instructions for it, for there they are faster
than float32's limit.
"""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import subprocess
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from benchmarks.peers.models import FOLDER

_SOURCE = Path(__file__).with_suffix(".cpp")
_BYTES = 512 << 20  # well beyond any cache
_GEMM = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """bandwidth: bytes read a second. fma: float32 multiply-adds a second. gemm_float32, gemm_bfloat16:
    multiply-adds a second of torch's products of large square matrices, 0 where it was not measured."""

    bandwidth: float
    fma: float
    gemm_float32: float
    gemm_bfloat16: float

    @property
    def compute(self) -> float:
        """Multiply-adds a second that nothing exceeds."""
        return max(self.fma, self.gemm_float32, self.gemm_bfloat16)


class Probe:
    """The compiled measurements."""

    def __init__(self) -> None:
        self._library = _build()
        self.threads = len(os.sched_getaffinity(0))

    def bandwidth(self, repeats: int = 7) -> float:
        """Bytes read a second."""
        read = self._library.read_bandwidth
        read.restype, read.argtypes = ctypes.c_double, (ctypes.c_int, ctypes.c_size_t, ctypes.c_int)
        return float(read(self.threads, _BYTES, repeats))

    def fma(self, repeats: int = 7) -> float:
        """float32 multiply-adds a second."""
        peak = self._library.multiply_add_peak
        peak.restype, peak.argtypes = ctypes.c_double, (ctypes.c_int, ctypes.c_int)
        return float(peak(self.threads, repeats))


@cache
def _build() -> ctypes.CDLL:
    """Compile the probe, once for each version of its source."""
    library = FOLDER / f"limits-{_SOURCE.stat().st_mtime_ns}.so"
    if not library.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        options = ["-std=c++20", "-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread"]
        subprocess.run(["g++", *options, _SOURCE, "-o", library], check=True)
    return ctypes.CDLL(str(library))


def measure() -> Limits:
    """About two seconds, with every core busy."""
    import torch

    probe = Probe()
    flags = Path("/proc/cpuinfo").read_text().split()
    multiplies_bfloat16 = "avx512_bf16" in flags or "amx_bf16" in flags
    torch.set_num_threads(probe.threads)
    return Limits(
        bandwidth=probe.bandwidth(),
        fma=probe.fma(),
        gemm_float32=_gemm(torch.float32),
        gemm_bfloat16=_gemm(torch.bfloat16) if multiplies_bfloat16 else 0.0,
    )


def _gemm(dtype: object) -> float:
    import torch

    left, right = (torch.ones(_GEMM, _GEMM, dtype=dtype) for _ in range(2))  # type: ignore[call-overload]
    seconds = []
    for _ in range(4):
        begun = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - begun)
    return float(_GEMM**3 / statistics.median(seconds[1:]))


if __name__ == "__main__":
    print(json.dumps(asdict(measure())))
