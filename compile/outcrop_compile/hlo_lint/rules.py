"""The rules, as data.

Codes are neuronx-cc's own, without their NCC_ before them: AWS Neuron documentation, "Neuron Compiler error
codes". Rules without a code are of the published operator list, of AWS's Llama examples, or of what
NeuronCore-v2 makes of a graph; `why` says which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]
"""error: does not compile, or computes something else. warning: compiles, and is slow or risky."""


@dataclass(frozen=True, slots=True)
class Rule:
    """codes: what the compiler would say. mend: what to write instead."""

    id: str
    codes: tuple[str, ...]
    severity: Severity
    what: str
    why: str
    mend: str


RULES = {
    rule.id: rule
    for rule in (
        Rule(
            "dynamic-shape", ("EMOD025",), "error",
            "a dimension whose size depends on data",
            "every shape is a constant of the compiled graph",
            "pad to a fixed size and mask; compile a bucket for each size",
        ),
        Rule(
            "custom-call", ("EVRF015",), "error",
            "a custom call that the compiler does not know",
            "only the AwsNeuron* targets are recognised",
            "write it in plain operations, or as an NKI kernel (AwsNeuronCustomNativeKernel)",
        ),
        Rule(
            "dtype", ("ESPP004",), "error",
            "a type that the chip does not have, such as f64",
            "a Python number in a comparison or a masked_fill makes torch_xla widen both sides to f64",
            "compare and fill with a tensor of the other side's dtype (torch.full_like)",
        ),
        Rule(
            "complex", ("EVRF004",), "error",
            "complex numbers",
            "no engine computes with them",
            "keep real and imaginary parts in two tensors (rotary embedding: cos and sin tables)",
        ),
        Rule(
            "fp8", ("EVRF005", "EVRF051"), "error",
            "an 8-bit float that NeuronCore-v2 does not take (FNUZ types, f8e4m3fn)",
            "its 8-bit floats are f8e4m3 and f8e5m2",
            "weights: int8 with a scale for each channel; else bfloat16",
        ),
        Rule(
            "rng", ("EVRF006",), "error",
            "random numbers made on the device",
            "only the default algorithm is supported, and its seed is ignored: no draw can be repeated",
            "draw on the host and pass the numbers in; a draw is then the sampled token's own",
        ),
        Rule(
            "topk-integer", ("EVRF013",), "error",
            "top-k of integers",
            "the instruction compares floats",
            "convert to float32 before (exact to 2^24)",
        ),
        Rule(
            "scatter-combiner", ("EVRF016", "EVRF060"), "error",
            "a scatter that combines integers or booleans",
            "scatters that compute do so in floating point; plain overwriting is fine",
            "overwrite (torch.index_put), or add in float32",
        ),
        Rule(
            "out-of-bounds", ("EVRF031", "EVRF056"), "error",
            "constant indices beyond the tensor that they index",
            "the compiler checks what it can, and at run time an index out of bounds is NRT 1006",
            "keep every index valid: send padded lanes to a block of their own",
        ),
        Rule(
            "shift-right", ("EVRF022",), "error",
            "an arithmetic shift to the right of a type that is not 32 bits wide",
            "the instruction is 32 bits wide",
            "convert to int32 before the shift",
        ),
        Rule(
            "dot-integer", ("EVRF035",), "error",
            "a matrix product of integers",
            "64-bit ones are refused; others are computed in float32 (exact to 2^24 only)",
            "convert to bfloat16 or float32, and apply the scale to the result",
        ),
        Rule(
            "u64-constant", ("ESFH002",), "error",
            "a constant of unsigned 64-bit integers",
            "64-bit integers are made 32-bit ones, and these do not fit",
            "use int32; leave hashes and random state to the host",
        ),
        Rule(
            "sort", ("EUOC002", "EVRF001"), "error",
            "a sort, which is also what torch.topk lowers to",
            "not supported",
            "AwsNeuronTopK on float32 rows; largest first: max, and the least place where it is",
        ),
        Rule(
            "unsupported", ("EUOC002", "EVRF001"), "error",
            "an operation that the chip has not (fft, cholesky, triangular-solve, host transfers)",
            "not supported",
            "compute it on the host, or in matrix products",
        ),
        Rule(
            "s64-bulk", (), "warning",
            "more than a thousand 64-bit integers that are more than a comparison",
            "on Trn1 they are made 32-bit without a word (AWS Neuron documentation, data types)",
            "give arange, indices and sums dtype=torch.int32",
        ),
        Rule(
            "instructions", ("EBVF030", "EVRF007", "EXTP004"), "warning",
            "more than five million instructions, by a rough count of tiles",
            "that is the compiler's limit after unrolling",
            "compile for fewer tokens or blocks, for more ranks, or with -O1",
        ),
        Rule(
            "memory", ("EOOM001", "EOOM002", "EVRF009", "EXSP001"), "error",
            "parameters and temporaries that do not fit into a NeuronCore's HBM",
            "a NeuronCore-v2 has 16 GiB, of which code, rings and the runtime take some",
            "more ranks, fewer KV blocks, int8 weights, or smaller buckets",
        ),
        Rule(
            "mixed-versions", ("EVRF059", "EVRF065"), "error",
            "graphs of one artifact made by different versions of a package",
            "kernels traced with different versions of NKI cannot be compiled together",
            "lower all graphs anew, in one environment",
        ),
        Rule(
            "element-scatter", (), "warning",
            "a scatter of single elements",
            "each is a DMA of a few bytes, which costs as much as one of 512",
            "scatter rows: torch.index_put with one index for each row, not torch.scatter with expanded ones",
        ),
        Rule(
            "short-gather", (), "warning",
            "a gather of many pieces of less than 512 bytes",
            "DMA moves 512 bytes in the time of one",
            "gather whole rows or blocks (torch.index_select on dimension 0), or select by a one-hot mask",
        ),
        Rule(
            "not-aliased", (), "error",
            "a state that the graph returns anew instead of in its place",
            "without input_output_alias the whole KV cache is copied in every step, and kept twice",
            "alias the output with its parameter: a buffer that forward reassigns, in ModelBuilder and here",
        ),
        Rule(
            "kernel-copies", (), "error",
            "an NKI kernel that returns a state anew instead of in its place",
            "without output_operand_aliasing at its call, a kernel's result is another buffer: the KV cache "
            "is copied in every call, even where the graph's output is aliased",
            "write into the argument and return it: nki.jit then says so at the call",
        ),
        Rule(
            "graphs-per-step", (), "warning",
            "more than one graph for one step",
            "a graph with collectives costs a fixed 0.15 ms (2 ranks) to 5 ms (32 ranks) at each launch",
            "make one graph of the step",
        ),
        Rule(
            "not-finite", (), "error",
            "a constant that is infinite or not a number",
            '"You cannot use -inf well on Neuron, you will run into 1003 errors" (neuronx-distributed, '
            "examples/inference/llama/model.py)",
            "mask with a finite number (-30000.0, torch.finfo(dtype).min)",
        ),
        Rule(
            "integer-division", (), "error",
            "a division of integers",
            "it is computed in float32, and is wrong beyond 2^24 and for divisors that are no power of two",
            "divide on the host, and pass quotient and remainder in",
        ),
        Rule(
            "power", (), "warning",
            "a power whose exponent is not a constant",
            "the published operator list has pow with a constant integer exponent",
            "x * x; or exp(y * log(x))",
        ),
        Rule(
            "reduce-window", (), "warning",
            "a window over a long axis, which is what cumsum lowers to",
            "n elements cost n * n, and general windows are not on the published operator list",
            "a product with a triangular matrix of ones",
        ),
        Rule(
            "control-flow", (), "warning",
            "a loop or a branch on the device",
            "neither is on the published operator list",
            "unroll, or make the choice on the host: a bucket for each case",
        ),
        Rule(
            "integer-collective", (), "warning",
            "a sum of integers over ranks",
            "all-reduce computes integers in float32 (AWS Neuron documentation, data types)",
            "sum floats; gather integers",
        ),
        Rule(
            "unlisted", (), "warning",
            "an operation of which nothing is published",
            "it is neither on the compiler's operator list nor known to be taken",
            "check with `neuronx-cc list-operators --framework XLA`, or write it in listed operations",
        ),
    )
}  # fmt: skip

CUSTOM_CALLS = (
    "AwsNeuronErf", "AwsNeuronGelu*", "AwsNeuronSilu*", "AwsNeuronRmsNorm*", "AwsNeuronSoftmax*",
    "AwsNeuronCollectiveMatmul", "AwsNeuronIntMatmult", "AwsNeuronArgMax", "AwsNeuronArgMin", "AwsNeuronTopK",
    "AwsNeuronDropoutMaskV1", "AwsNeuronCustomNativeKernel", "AwsNeuronCustomOp", "AwsNeuronDevicePrint",
    "ResizeNearest*", "ResizeBilinear", "AwsNeuronLNCShardingConstraint", "AwsNeuronTransferWithStaticRing",
    "AwsNeuronModuleMarker*", "NeuronBoundaryMarker-*",
)  # fmt: skip
"""Targets of custom calls that neuronx-cc knows, as it lists them with NCC_EVRF015; * for any ending."""

LISTED = frozenset({
    "abs", "add", "all-gather", "all-reduce", "all-to-all", "and", "atan2", "batch-norm-grad",
    "batch-norm-inference", "batch-norm-training", "bitcast", "bitcast-convert", "broadcast", "call",
    "ceil", "clamp", "collective-permute", "compare", "concatenate", "constant", "convert", "convolution",
    "copy", "cosine", "custom-call", "divide", "dot", "dynamic-slice", "dynamic-update-slice", "erf",
    "exponential", "exponential-minus-one", "floor", "gather", "get-tuple-element", "iota", "log",
    "log-plus-one", "logistic", "map", "maximum", "minimum", "multiply", "negate", "not", "or", "pad",
    "parameter", "power", "reduce", "reduce-scatter", "remainder", "reshape", "reverse",
    "round-nearest-afz", "round-nearest-even", "rsqrt", "scatter", "select", "select-and-scatter",
    "shift-left", "shift-right-arithmetic", "shift-right-logical", "sign", "sine", "slice", "sqrt",
    "subtract", "tan", "tanh", "topk", "transpose", "tuple", "xor",
})  # fmt: skip
"""Opcodes of the published operator list and the release notes after it, and those that AWS's own Llama
graphs have. What another rule names is not here."""
