"""The C++ library of this folder, which is built with the package where there is a compiler."""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

_POINTER, _LONG, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_float
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "pack": (_POINTER, _POINTER, _LONG, _LONG, _INT),
    "narrow": (_POINTER, _POINTER, _LONG),
    "linear": (_POINTER, _POINTER, _POINTER, _LONG, _LONG, _LONG, _INT),
    "quantise": (*(_POINTER,) * 4, _LONG, _LONG),
    "linear_quantised": (*(_POINTER,) * 5, _LONG, _LONG, _LONG, _INT),
    "attention": (*(_POINTER,) * 7, *(_LONG,) * 11, _INT),
    "rms_norm": (*(_POINTER,) * 5, _LONG, _LONG, _FLOAT),
    "rope_cache": (*(_POINTER,) * 7, *(_LONG,) * 8, _INT),
    "swiglu": (_POINTER, _POINTER, _LONG, _LONG),
    "take": (_POINTER, _POINTER, _POINTER, _LONG, _LONG, _LONG, _INT),
    "step_tokens": (*(_POINTER,) * 5, _LONG, _LONG),
    "keep_tokens": (*(_POINTER,) * 4, _LONG),
    "add": (_POINTER, _POINTER, _POINTER, _LONG),
    "peak": (_POINTER, _POINTER, _LONG, _LONG),
    "both_finite": (_POINTER, _POINTER, _POINTER, _LONG),
    "sample": (_POINTER, _POINTER, _POINTER, _POINTER, _LONG, _LONG),
    "finish": (),
    "replay": (_POINTER,),
    "profile": (_POINTER, _POINTER),
    "free": (_POINTER,),
}


class NativeUnavailable(ValueError):
    """There is no native library, or it has no kernels of the kind asked for; the message says why."""


def available() -> bool:
    """Whether the library was built."""
    try:
        library()
    except NativeUnavailable:
        return False
    return True


def start(threads: int, isa: str = "auto") -> str:
    """Start the team with the kernels for an instruction set ("auto": the best that this processor has);
    returns which. There is one team in a process; to start again replaces it. Raises NativeUnavailable."""
    native = library()
    if not native.outcrop_start(isa.encode(), threads):
        raise NativeUnavailable(f"this processor does not have the {isa} instructions")
    name: bytes = native.outcrop_isa()
    return name.decode()


def library_file() -> Path:
    """Where the library is. Raises NativeUnavailable."""
    folder = Path(__file__).parent
    found = [folder / f"_library{suffix}" for suffix in EXTENSION_SUFFIXES]
    path = next((candidate for candidate in found if candidate.is_file()), None)
    if path is None:
        raise NativeUnavailable(
            f"{folder}: the native kernels were not built; install a C++ compiler (g++ 11 or later) and then "
            "the package again"
        )
    return path


@cache
def library() -> ctypes.CDLL:
    """The library, each function with its signature. Not thread-safe. Raises NativeUnavailable."""
    native = ctypes.CDLL(str(library_file()))
    native.outcrop_isa.restype = ctypes.c_char_p
    native.outcrop_start.argtypes = (ctypes.c_char_p, _INT)
    native.outcrop_record.restype = _POINTER
    native.outcrop_stretches.argtypes, native.outcrop_stretches.restype = (_LONG,) * 5, _LONG
    native.outcrop_size.argtypes, native.outcrop_size.restype = (_POINTER,), _LONG
    native.outcrop_name.argtypes, native.outcrop_name.restype = (_POINTER, _LONG), ctypes.c_char_p
    for name, arguments in _SIGNATURES.items():
        function = getattr(native, f"outcrop_{name}")
        function.argtypes, function.restype = arguments, None
    return native
