"""The releases of the AWS Neuron SDK that Outcrop is made for, as data. No torch.

Versions: `neuron_releases` of `src/helperscripts/n2-manifest.json` in aws-neuron/aws-neuron-sdk, commit
81ce03ae261e.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType

INDEX = "https://pip.repos.neuron.amazonaws.com"
"""The real packages. PyPI has empty ones under the same names."""


@dataclass(frozen=True, slots=True)
class Release:
    """python: the packages that make and run graphs. system: those of the host, by their apt or dnf name."""

    name: str
    python: Mapping[str, str]
    system: Mapping[str, str]

    def install_command(self) -> str:
        """What a shell runs to have this release's Python packages."""
        wanted = " ".join(f"{name}=={version}" for name, version in self.python.items())
        return f"pip install --extra-index-url {INDEX} {wanted}"


RELEASES: Mapping[str, Release] = MappingProxyType(
    {
        "2.31.1": Release(
            "2.31.1",
            MappingProxyType(
                {
                    "torch-neuronx": "2.9.0.2.15.32035",
                    "neuronx-cc": "2.26.6360.0",
                    "libneuronxla": "2.2.17544.0",
                    "neuronx-distributed": "0.19.28492",
                }
            ),
            MappingProxyType(
                {
                    "aws-neuronx-dkms": "2.29.0.0",
                    "aws-neuronx-runtime-lib": "2.33.10.0",
                    "aws-neuronx-collectives": "2.33.10.0",
                    "aws-neuronx-tools": "2.31.15.0",
                }
            ),
        ),
        "2.28.1": Release(
            "2.28.1",
            MappingProxyType(
                {
                    "torch-neuronx": "2.9.0.2.12.22436",
                    "neuronx-cc": "2.23.6484.0",
                    "libneuronxla": "2.2.15515.0",
                    "neuronx-distributed": "0.17.26814",
                }
            ),
            MappingProxyType(
                {
                    "aws-neuronx-dkms": "2.26.10.0",
                    "aws-neuronx-runtime-lib": "2.30.51.0",
                    "aws-neuronx-collectives": "2.30.59.0",
                    "aws-neuronx-tools": "2.28.23.0",
                }
            ),
        ),
    }
)
DEFAULT_RELEASE = "2.31.1"
"""The last that has torch-neuronx and NxD Core for inf2 and trn1."""


def release_of(packages: Mapping[str, str]) -> str | None:
    """The release whose Python packages these are, local version suffixes (`+…`) aside; None if there is
    no such."""
    for release in RELEASES.values():
        if all(packages.get(name, "").partition("+")[0] == pin for name, pin in release.python.items()):
            return release.name
    return None


def installed_packages() -> dict[str, str]:
    """The versions of the SDK's Python packages in this environment; those that are absent are left out."""
    found = {}
    for name in RELEASES[DEFAULT_RELEASE].python:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
