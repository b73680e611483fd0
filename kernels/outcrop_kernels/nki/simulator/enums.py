"""The enumerations of nki.isa, with the members that SDK 2.28 has too."""

# ruff: noqa: N801 - NKI's names

from __future__ import annotations

from enum import Enum


class engine(Enum):
    unknown = 0
    tensor = 1
    scalar = 2
    gpsimd = 3
    dma = 4
    vector = 5
    sync = 6


class reduce_cmd(Enum):
    idle = 0
    reset = 1
    reduce = 2
    reset_reduce = 3
    load_reduce = 4


class dge_mode(Enum):
    unknown = 0
    swdge = 1
    hwdge = 2
    none = 3


class oob_mode(Enum):
    error = 0
    skip = 1


class nc_version(Enum):
    gen2 = 2
    gen3 = 3
    gen4 = 4


class matmul_perf_mode(Enum):
    none = "none"
    double_row = "double_row"
