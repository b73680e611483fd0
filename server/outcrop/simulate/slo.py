"""What is promised to clients: a time to first token, a time per output token, and to how many of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Slo:
    """ttft, tpot: milliseconds that a request may take at most. share: of the requests that have to keep to
    both for the promise to hold."""

    ttft: float
    tpot: float
    share: float = 0.99

    def __post_init__(self) -> None:
        for name in ("ttft", "tpot"):
            if not getattr(self, name) > 0:
                raise ValueError(f"--slo: {name} is {getattr(self, name):g} ms; it has to be above 0")
        if not 0 < self.share <= 1:
            raise ValueError(
                f"--slo: share is {self.share:g}; it is a part of the requests, above 0 and up to 1"
            )

    def met(self, ttft: Times, tpot: Times) -> npt.NDArray[np.bool_]:
        """[N] whether each request kept to it. Milliseconds; NaN for one that got no token."""
        return (ttft <= self.ttft) & (tpot <= self.tpot)

    def __str__(self) -> str:
        return f"TTFT {self.ttft:g} ms, TPOT {self.tpot:g} ms for {self.share:.4g} of requests"


ANY = Slo(1e9, 1e9)
"""What every answer keeps to: for runs that nothing is promised of."""

PRESETS = {
    "mlperf-8b-server": Slo(2000, 100),
    "mlperf-8b-interactive": Slo(500, 30),
    "mlperf-70b-server": Slo(2000, 200),
    "mlperf-70b-interactive": Slo(450, 40),
}
"""MLPerf Inference's constraints on the 99th percentile (loadgen/mlperf.conf of mlcommons/inference)."""


def parse_slo(text: str) -> Slo:
    """A preset's name, or `ttft=500,tpot=50` and perhaps `,share=0.95`. Raises ValueError."""
    if text in PRESETS:
        return PRESETS[text]
    names = f"use ttft=MS,tpot=MS[,share=PART] or one of {', '.join(PRESETS)}"
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            if name.strip() not in ("ttft", "tpot", "share"):
                raise ValueError
            found[name.strip()] = float(number)
        except ValueError:
            raise ValueError(f"--slo {text}: {part!r} is not understood; {names}") from None
    if "ttft" not in found or "tpot" not in found:
        raise ValueError(f"--slo {text}: it lacks ttft or tpot; {names}")
    return replace(
        Slo(found["ttft"], found["tpot"]), **({"share": found["share"]} if "share" in found else {})
    )
