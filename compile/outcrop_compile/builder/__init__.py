"""Building an artifact: weights sharded, graphs traced and compiled, everything written down."""

from outcrop_compile.builder.compiler import Compiler, CompilerUnavailable, NxdCompiler
from outcrop_compile.builder.failures import CompilationFailed
from outcrop_compile.builder.make import BuildRefused, Options, build

__all__ = [
    "BuildRefused",
    "CompilationFailed",
    "Compiler",
    "CompilerUnavailable",
    "NxdCompiler",
    "Options",
    "build",
]
