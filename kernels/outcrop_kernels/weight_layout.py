"""In which order the numbers of a matrix lie that products read. No torch."""

from __future__ import annotations

from typing import Literal

WeightLayout = Literal["outputs-first", "inputs-first"]
"""[out, in], as checkpoints have a matrix, or [in, out]: the tensor engine takes inputs along partitions, so
kernels that stream a matrix want its rows to be inputs. Scales of output features are [out, 1] in both."""
