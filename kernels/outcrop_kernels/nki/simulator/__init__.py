"""Runs NKI kernels in numpy, and refuses what NeuronCore-v2 or its compiler would.

A kernel is written once, against names that SDK 2.28 to 2.32 share:

    from outcrop_kernels.nki.language import nisa, nki, nl

    @nki.jit
    def scale(x, factor):
        rows, width = x.shape
        out = nl.ndarray((rows, width), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray((rows, width), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x)
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=factor)
        nisa.dma_copy(dst=out, src=tile)
        return out

and is run, on torch tensors or numpy arrays, by

    out, report = simulate(scale, x, 2.0)
    out, report = simulate(write, pool, rows, slots, mutable=("pool",), indirect_dma=True)

`simulate` returns what the kernel returns (torch tensors where an argument was one) and a `Report` of bytes
moved, engine work and estimated times. It raises `Refused`, which names the kernel's line, the rule (one of
`RULES`) and how to mend it.

Each run is repeated with the instructions of nl.affine_range loops in other orders of their iterations, and
has to say the same; nl.sequential_range and range keep theirs.

Conventions that follow from the common subset: instructions take `dst` first and name their arguments;
inputs and outputs move by nisa.dma_copy; outputs are in nl.shared_hbm and are returned; an on-chip tensor is
sliced in its partitions (t[i:i + 1], never t[i]); .ap() is called on a tensor as allocated; a PSUM tile is
allocated afresh for every sum of matmuls; broadcasting in free dimensions is .ap() with a stride of 0.
"""

from outcrop_kernels.nki.simulator.cost import DmaWork, EngineWork, Report
from outcrop_kernels.nki.simulator.rules import RULES, Place, Refused, Rule
from outcrop_kernels.nki.simulator.run import simulate

__all__ = ["RULES", "DmaWork", "EngineWork", "Place", "Refused", "Report", "Rule", "simulate"]
