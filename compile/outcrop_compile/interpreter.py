"""Another Python interpreter, asked what its environment has. Needs nothing but Python itself."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_LIST = (
    "import json, sys\nfrom importlib.metadata import distributions\n"
    "print(json.dumps({'minor': sys.version_info.minor,"
    " 'packages': {each.name: each.version for each in distributions()}}))"
)
_PATIENCE = 60


@dataclass(frozen=True, slots=True)
class Installed:
    """minor: of its Python 3. packages: versions by name, as `canonical` has names."""

    minor: int
    packages: Mapping[str, str]


def canonical(name: str) -> str:
    """A distribution's name as packages are compared by it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(python: Path) -> Installed:
    """Raises OSError, SubprocessError and ValueError where that file is no interpreter that runs."""
    done = subprocess.run(
        [str(python), "-c", _LIST], capture_output=True, text=True, timeout=_PATIENCE, check=True
    )
    told = json.loads(done.stdout)
    return Installed(told["minor"], {canonical(name): version for name, version in told["packages"].items()})
