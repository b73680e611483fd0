"""The gated MLP of a decode step's tokens: both its matrices are streamed once, and nothing between goes to
HBM.

Tiling. The tokens are turned, so that H runs along the partitions. Tiles of 128 inputs by 128 features are
the stationary matrix (loading one is four times as fast as moving it) and the tokens the moving one, so the
sums are [128 features, T]: already the layout in which the second product wants them. Up to 2048 features of
gate and up are summed in PSUM over all inputs; silu(gate) * up goes to SBUF for all features. In the second
product those are stationary and 2048 outputs at a time of the matrix move.

SBUF, per partition: turned tokens, H * T / 128 numbers; features, F * T / 128; a tile of each matrix, 4 KiB
each. PSUM: sums of gate and up, at most 6 banks, then of the outputs, 4. Moved: 3 * H * F weights once, x and
the result once. Matrix work: for 32 KiB of the first matrix 32 cycles to load and 64 to move (T up to 64),
0.034 us where DMA takes 0.12; for 128 KiB of the second 512 cycles, 0.18 us where DMA takes 0.48.

Counted for 32 tokens of Llama 3.1 8B at tp 8 (4096 by 1792): 45 MB, DMA decides with 164 us, at 100 % of its
272 GB/s and 66 % of the HBM's 410, in pieces of 3.5 and 4 KiB; tensor 41, vector 5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outcrop_kernels.nki.kernel import Argument, Contract, Limit
from outcrop_kernels.nki.language import nisa, nki, nl
from outcrop_kernels.nki.tokens import BANK, PARTITIONS, load, shares_of, sums, turned

if TYPE_CHECKING:
    from outcrop_kernels.nki.simulator.memory import Tensor

BLOCK = 16
"""Tiles of 128 features, or of outputs, whose sums are in PSUM at a time, at most."""


@nki.jit
def swiglu_mlp(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """x [T, H], T at most 128; gate_up [H, 2 F], gate in the first half, and down [F, H], inputs first.
    Returns [T, H] in x's dtype, of this rank's features."""
    tokens, width = x.shape
    features = gate_up.shape[1] // 2
    out = nl.ndarray((tokens, width), dtype=x.dtype, buffer=nl.shared_hbm)
    shares = shares_of(tokens, width)
    inputs = turned(load(x, 0, tokens, shares), shares)
    hidden = nl.ndarray((PARTITIONS, features // PARTITIONS, tokens), dtype=x.dtype, buffer=nl.sbuf)
    block = min(BLOCK, 3 * (BANK // tokens))
    for start in range(0, features // PARTITIONS, block):
        _features(hidden, inputs, gate_up, start, min(block, features // PARTITIONS - start))
    for start in range(0, width, BLOCK * PARTITIONS):
        _outputs(out, hidden, down, start, min(BLOCK * PARTITIONS, width - start))
    return out


def _features(hidden: Tensor, inputs: Tensor, gate_up: Tensor, first: int, count: int) -> None:
    """Tiles of features first .. first + count of silu(gate) * up."""
    _, tiles, tokens, shares = inputs.shape
    features = gate_up.shape[1] // 2
    gate, up = sums(PARTITIONS, tokens, count), sums(PARTITIONS, tokens, count)
    each = BANK // tokens
    columns = first * PARTITIONS
    for share in range(shares):
        for tile in range(tiles):
            row = (share * tiles + tile) * PARTITIONS
            some = nl.ndarray((PARTITIONS, 2, count * PARTITIONS), dtype=gate_up.dtype, buffer=nl.sbuf)
            for half in range(2):
                begin = half * features + columns
                nisa.dma_copy(
                    dst=some[:, half, :],
                    src=gate_up[row : row + PARTITIONS, begin : begin + count * PARTITIONS],
                )
            for part in range(count):
                bank, place = part // each, part % each
                low, high = part * PARTITIONS, (part + 1) * PARTITIONS
                moving = inputs[:, tile, :, share]
                nisa.nc_matmul(dst=gate[bank][:, place, :], stationary=some[:, 0, low:high], moving=moving)
                nisa.nc_matmul(dst=up[bank][:, place, :], stationary=some[:, 1, low:high], moving=moving)
    for bank in range(len(gate)):
        size = gate[bank].shape[1]
        gated = nl.ndarray((PARTITIONS, size, tokens), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=gated, op=nl.silu, data=gate[bank])
        start = first + bank * each
        nisa.tensor_tensor(
            dst=hidden[:, start : start + size, :], data1=gated, data2=up[bank], op=nl.multiply
        )


def _outputs(out: Tensor, hidden: Tensor, down: Tensor, start: int, count: int) -> None:
    """Outputs start .. start + count of the second product."""
    _, tiles, tokens = hidden.shape
    banks = sums(tokens, PARTITIONS, count // PARTITIONS)
    for tile in range(tiles):
        row = tile * PARTITIONS
        some = nl.ndarray((PARTITIONS, count), dtype=down.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=some, src=down[row : row + PARTITIONS, start : start + count])
        for bank in range(len(banks)):
            end = min(count, (bank + 1) * BANK)
            nisa.nc_matmul(dst=banks[bank], stationary=hidden[:, tile, :], moving=some[:, bank * BANK : end])
    result = nl.ndarray((tokens, count), dtype=out.dtype, buffer=nl.sbuf)
    for bank in range(len(banks)):
        end = min(count, (bank + 1) * BANK)
        nisa.tensor_copy(
            dst=result[:, bank * BANK : end], src=banks[bank].reshape((tokens, end - bank * BANK))
        )
    nisa.dma_copy(dst=out[:, start : start + count], src=result)


CONTRACT = Contract(
    arguments=(Argument("x", "T I"), Argument("gate_up", "I G"), Argument("down", "F I")),
    results=(Argument("out", "T I"),),
    limits=(
        Limit("T at most 128", lambda size: size["T"] <= 128),
        Limit("I a multiple of 128", lambda size: size["I"] % 128 == 0),
        Limit("F a multiple of 128, G twice that", lambda s: s["F"] % 128 == 0 and s["G"] == 2 * s["F"]),
        Limit("features in 64 KiB of a partition", lambda s: s["F"] // 128 * s["T"] * s["item"] <= 65536),
    ),
    tolerance={"bfloat16": 2**-7, "float32": 2e-6},
)
