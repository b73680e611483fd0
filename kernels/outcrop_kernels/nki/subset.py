"""The names that kernels may use: what SDK 2.28 to 2.32 all have, each with a public source that shows it.

Every one is in the API stubs of https://github.com/aws-neuron/aws-neuron-sdk at each of the tags v2.28.0,
v2.29.0, v2.30.0, v2.31.0 and v2.32.0 (nki/api/nki/isa, nki/api/nki/language; operators in
nki/api/nki.api.shared.rst), with the parameters that `outcrop_kernels.nki.simulator` gives it.
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCES = {
    "library": "https://github.com/aws-neuron/nki-library, tag 2.28, src/nkilib_src/nkilib/",
    "samples": "https://github.com/aws-neuron/nki-samples, commit 6905a68, ",
    "docs": "https://github.com/aws-neuron/aws-neuron-sdk, tag v2.28.0, ",
}


@dataclass(frozen=True, slots=True)
class Name:
    module: str
    """nl or nisa."""
    name: str
    source: str
    """A public file that uses the name, or lists it."""


_TABLE = """
nisa activation             library core/qkv/qkv_cte.py
nisa activation_reduce      library core/qkv/qkv_cte.py
nisa affine_select          library core/max/cascaded_max.py
nisa bn_aggr                library core/qkv/qkv_cte.py
nisa bn_stats               library core/qkv/qkv_cte.py
nisa dge_mode               docs nki/api/nki/isa/__init__.py
nisa dma_copy               library core/qkv/qkv_cte.py
nisa engine                 library core/router_topk/router_topk.py
nisa get_nc_version         library core/qkv/qkv_tkg.py
nisa iota                   library core/max/cascaded_max.py
nisa matmul_perf_mode       library core/output_projection/output_projection_tkg.py
nisa max8                   library core/router_topk/router_topk.py
nisa memset                 library core/qkv/qkv_cte.py
nisa nc_find_index8         library core/max/cascaded_max.py
nisa nc_match_replace8      library core/topk/rotational_topk_utils.py
nisa nc_matmul              library core/qkv/qkv_cte.py
nisa nc_n_gather            library core/topk/rotational_topk.py
nisa nc_stream_shuffle      library core/qkv/qkv_cte.py
nisa nc_transpose           library core/qkv/qkv_cte.py
nisa nc_version             library core/qkv/qkv_tkg.py
nisa oob_mode               library core/attention/attention_tkg.py
nisa reciprocal             library core/qkv/qkv_cte.py
nisa reduce_cmd             samples src/nki_samples/tutorials/attention_fwd_performance/attention_kernels.py
nisa scalar_tensor_tensor   library core/qkv/qkv_cte.py
nisa tensor_copy            library core/qkv/qkv_cte.py
nisa tensor_copy_predicated library core/attention/attention_tkg.py
nisa tensor_reduce          library core/max/cascaded_max.py
nisa tensor_scalar          library core/qkv/qkv_cte.py
nisa tensor_scalar_reduce   library core/rmsnorm/rmsnorm_quant.py
nisa tensor_tensor          library core/qkv/qkv_cte.py
nisa tensor_tensor_scan     library core/cumsum/cumsum.py
nl   abs                    library core/rmsnorm/rmsnorm_quant.py
nl   add                    library core/qkv/qkv_cte.py
nl   affine_range           library core/qkv/qkv_cte.py
nl   arctan                 docs nki/api/nki.api.shared.rst
nl   bfloat16               library core/qkv/qkv_cte.py
nl   bitwise_and            docs nki/deep-dives/nki-migration-guide.rst
nl   bitwise_or             docs nki/api/nki.api.shared.rst
nl   bitwise_xor            docs nki/api/nki.api.shared.rst
nl   bool_                  docs nki/api/nki/language/__init__.py
nl   copy                   library core/qkv/qkv_cte.py
nl   ds                     library core/qkv/qkv_cte.py
nl   equal                  library core/max/cascaded_max.py
nl   erf                    docs nki/api/nki.api.shared.rst
nl   exp                    library core/loss/cross_entropy.py
nl   float16                library core/qkv/qkv_tkg.py
nl   float32                library core/qkv/qkv_cte.py
nl   gelu                   library core/utils/kernel_helpers.py
nl   gelu_apprx_tanh        library core/utils/kernel_helpers.py
nl   greater                docs nki/api/nki.api.shared.rst
nl   greater_equal          library core/attention/attention_bwd.py
nl   hbm                    library core/qkv/qkv_tkg.py
nl   int16                  docs nki/api/nki/language/__init__.py
nl   int32                  library core/qkv/qkv_cte.py
nl   int8                   library core/utils/allocator.py
nl   left_shift             docs nki/api/nki.api.shared.rst
nl   less                   library core/attention/gen_mask_tkg.py
nl   less_equal             library core/attention/attention_cte.py
nl   log                    library core/loss/cross_entropy.py
nl   logical_and            docs nki/api/nki.api.shared.rst
nl   logical_or             docs nki/api/nki.api.shared.rst
nl   logical_xor            docs nki/api/nki.api.shared.rst
nl   maximum                library core/qkv/qkv_cte.py
nl   minimum                library core/qkv/qkv_cte.py
nl   multiply               library core/qkv/qkv_cte.py
nl   ndarray                library core/mlp/mlp.py
nl   not_equal              docs nki/api/nki.api.shared.rst
nl   num_programs           library core/utils/kernel_helpers.py
nl   power                  docs nki/api/nki.api.shared.rst
nl   private_hbm            library core/utils/kernel_helpers.py
nl   program_id             library core/utils/kernel_helpers.py
nl   psum                   library core/qkv/qkv_cte.py
nl   reciprocal             docs nki/api/nki.api.shared.rst
nl   relu                   docs nki/api/nki.api.shared.rst
nl   right_shift            docs nki/api/nki.api.shared.rst
nl   rsqrt                  library core/qkv/qkv_cte.py
nl   sbuf                   library core/qkv/qkv.py
nl   sequential_range       library core/qkv/qkv_cte.py
nl   shared_hbm             library core/mlp/mlp.py
nl   shared_identity_matrix docs nki/api/nki/language/__init__.py
nl   sigmoid                library core/router_topk/router_topk.py
nl   sign                   docs nki/api/nki.api.shared.rst
nl   silu                   library core/utils/kernel_helpers.py
nl   sin                    library core/attention/attention_tkg.py
nl   softplus               docs nki/api/nki.api.shared.rst
nl   sqrt                   docs nki/api/nki.api.shared.rst
nl   square                 library core/qkv/qkv_cte.py
nl   static_range           library core/topk/rotational_topk.py
nl   subtract               library core/qkv/qkv_cte.py
nl   tanh                   docs nki/api/nki.api.shared.rst
nl   tfloat32               docs nki/api/nki/language/__init__.py
nl   tile_size              library core/qkv/qkv_cte.py
nl   uint16                 library core/utils/allocator.py
nl   uint32                 library core/utils/allocator.py
nl   uint8                  library core/qkv/qkv_cte.py
nl   zeros                  samples contributed/matmul.py
"""

NAMES = tuple(
    Name(module, name, SOURCES[where] + file)
    for module, name, where, file in (line.split() for line in _TABLE.strip().splitlines())
)
