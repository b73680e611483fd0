"""How long the unrolled program of a graph is, about."""

from __future__ import annotations

import math
from functools import lru_cache

from outcrop_compile.bucket import Bucket
from outcrop_compile.tensor_parallel import Layout
from outcrop_compile.weights import parameter_shapes

LIMIT = 5_000_000
"""Instructions beyond which neuronx-cc gives up (NCC_EBVF030, NCC_EXTP004)."""
_TILE = 128 * 128  # weights of one matrix instruction (nki.isa.nc_matmul)
_TOKENS = 512  # columns that it takes


def instructions(layout: Layout, bucket: Bucket) -> int:
    """Of the products with weights, each a load and a product; a lower bound."""
    return 2 * _tiles(layout) * -(-bucket.rows * bucket.width // _TOKENS)


@lru_cache(64)
def _tiles(layout: Layout) -> int:
    shapes = parameter_shapes(layout.config, layout.world, own_head=True)
    return (
        sum(math.prod(shape) for name, shape in shapes.items() if len(shape) == 2 and name != "embed")
        // _TILE
    )
