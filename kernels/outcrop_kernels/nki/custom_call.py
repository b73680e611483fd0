"""How a graph calls a kernel: the custom call that nki.jit makes of it, and what stands in for that where
there is no nki. No torch.

A call's configuration is JSON in base64, and results that take an operand's buffer are said to by the
instruction (output_operand_aliasing): https://github.com/aws-neuron/nkipy emits it like this. A stand-in has
the operands, the results and the aliases, and no kernel: a graph with it can be looked at and counted, not
compiled.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

TARGET = "AwsNeuronCustomNativeKernel"
_NAME, _ALIASES = "func_name", "operand_output_aliases"


def stand_in(name: str, aliases: Mapping[int, int]) -> str:
    """The configuration of a stand-in. name: of the kernel's function. aliases: from an operand's place to
    that of the result that takes its buffer."""
    return base64.b64encode(
        json.dumps({_NAME: name, "stand_in": True, _ALIASES: dict(aliases)}).encode()
    ).decode()


def kernel_name(config: bytes) -> str:
    """Of the kernel's function; empty where the configuration does not say."""
    return str(_read(config).get(_NAME, ""))


def kernel_aliases(config: bytes) -> dict[int, int]:
    """From a result's place to that of the operand whose buffer it takes, as a stand-in's configuration
    says."""
    found = _read(config).get(_ALIASES, {})
    return {int(result): int(operand) for operand, result in found.items()}


def _read(config: bytes) -> dict[str, Any]:
    """Whoever made the graph may write something else there."""
    try:
        found = json.loads(base64.b64decode(config, validate=True))
    except (ValueError, binascii.Error):
        return {}
    return found if isinstance(found, dict) else {}
