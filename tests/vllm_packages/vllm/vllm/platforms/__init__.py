"""vllm/platforms: the one that an installed plug-in names (`vllm.platform_plugins` among entry points)."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any


class Platform:
    """What plug-ins extend. derives_max_model_len: from the model's configuration, where it is not given."""

    derives_max_model_len = True

    @classmethod
    def check_and_update_config(cls, vllm_config: Any) -> None:
        raise NotImplementedError


def _found() -> Any:
    names = [point.load()() for point in entry_points(group="vllm.platform_plugins")]
    (name,) = filter(None, names)
    module, _, platform = name.rpartition(".")
    return getattr(import_module(module), platform)()


def __getattr__(name: str) -> Any:
    """Found when it is asked for first, as vLLM does: the plug-in itself imports this package."""
    if name != "current_platform":
        raise AttributeError(name)
    globals()[name] = found = _found()
    return found
