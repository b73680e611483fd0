"""`nki`, `nl` (nki.language) and `nisa` (nki.isa): AWS's package where it is installed, else the simulator's.

The environment variable OUTCROP_NKI=simulator takes the simulator's in any case.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING


def installed() -> bool:
    """Whether AWS's nki is here; the package of that name on PyPI is empty."""
    return find_spec("nki") is not None and find_spec("nki.isa") is not None


SIMULATED = os.environ.get("OUTCROP_NKI") == "simulator" or not installed()

if TYPE_CHECKING or SIMULATED:
    from outcrop_kernels.nki.simulator import isa as nisa
    from outcrop_kernels.nki.simulator import language as nl
    from outcrop_kernels.nki.simulator import root as nki
else:
    import nki
    import nki.isa as nisa
    import nki.language as nl

__all__ = ["SIMULATED", "installed", "nisa", "nki", "nl"]
