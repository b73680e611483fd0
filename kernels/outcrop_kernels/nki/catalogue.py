"""The kernels there are, under the names that `--kernels` takes."""

from __future__ import annotations

from collections.abc import Iterable

from outcrop_kernels.nki import (
    fused_qkv,
    int8_dequant_matmul,
    kv_cache_write,
    paged_decode_attention,
    paged_prefill_attention,
    rmsnorm,
    rope,
    swiglu_mlp,
    topk_sample,
)
from outcrop_kernels.nki.kernel import Entry, Kernel
from outcrop_kernels.weight_layout import WeightLayout

KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel(
            "kv_cache_write",
            ("kv_write",),
            (Entry(kv_cache_write.kv_cache_write, kv_cache_write.CONTRACT, gathers=True, mutable=("pool",)),),
            "a scatter whose lowering decides whether the pool is copied",
        ),
        Kernel(
            "paged_decode_attention",
            ("paged_attention",),
            (
                Entry(
                    paged_decode_attention.paged_decode_attention,
                    paged_decode_attention.CONTRACT,
                    gathers=True,
                ),
            ),
            "the gathered keys and values, written to HBM and read again in every layer",
        ),
        Kernel(
            "paged_prefill_attention",
            ("paged_attention",),
            (
                Entry(
                    paged_prefill_attention.paged_prefill_attention,
                    paged_prefill_attention.CONTRACT,
                    gathers=True,
                ),
            ),
            "the gathered keys and values, and the scores of all queries in HBM",
        ),
        Kernel(
            "topk_sample",
            ("candidates", "greedy", "sample"),
            (
                Entry(topk_sample.topk, topk_sample.TOPK),
                Entry(topk_sample.largest, topk_sample.LARGEST),
            ),
            "a custom call in two steps, and a matrix of tokens by place",
        ),
        Kernel(
            "rmsnorm",
            ("rms_norm", "add_rms_norm"),
            (Entry(rmsnorm.rmsnorm, rmsnorm.RMSNORM), Entry(rmsnorm.add_rmsnorm, rmsnorm.ADD_RMSNORM)),
            "a reduction with a token to a partition, so 96 of 128 idle at 32 rows",
        ),
        Kernel("rope", ("rope",), (Entry(rope.rope, rope.CONTRACT),), "slices, products and a concatenation"),
        Kernel(
            "fused_qkv",
            ("fused_qkv",),
            (Entry(fused_qkv.fused_qkv, fused_qkv.CONTRACT),),
            "the normed tokens and the unrotated products in HBM",
            layout="inputs-first",
        ),
        Kernel(
            "swiglu_mlp",
            ("swiglu_mlp",),
            (Entry(swiglu_mlp.swiglu_mlp, swiglu_mlp.CONTRACT),),
            "gate, up and their product in HBM",
            layout="inputs-first",
        ),
        Kernel(
            "int8_dequant_matmul",
            ("linear_int8",),
            (Entry(int8_dequant_matmul.int8_dequant_matmul, int8_dequant_matmul.CONTRACT),),
            "a matrix in bfloat16, written to HBM and read again, where the compiler does not fuse the cast",
            layout="inputs-first",
        ),
    )
}


def chosen_kernels(text: str) -> frozenset[str]:
    """The kernels that `all`, `none` or names with commas between mean. Raises ValueError."""
    if text in ("all", "none"):
        return frozenset(KERNELS) if text == "all" else frozenset()
    names = frozenset(part.strip() for part in text.split(","))
    if unknown := sorted(names - KERNELS.keys()):
        raise ValueError(
            f"--kernels {text}: there is no kernel {', '.join(unknown)}; there are all, none, or some of "
            f"{', '.join(sorted(KERNELS))}, with commas between"
        )
    return names


def weight_layout(kernels: Iterable[str]) -> WeightLayout:
    """Of the matrices in a graph that calls these kernels: one for all of them."""
    layouts = {KERNELS[name].layout for name in kernels} - {None}
    return "inputs-first" if "inputs-first" in layouts else "outputs-first"
