"""Releases of the Neuron SDK by the versions of their packages."""

import pytest

from outcrop_compile.sdk import INDEX, RELEASES, installed_packages, release_of


@pytest.mark.parametrize("name", ["2.31.1", "2.28.1"])
def test_a_release_is_known_by_its_packages(name: str) -> None:
    packages = dict(RELEASES[name].python)
    assert release_of(packages) == name
    assert release_of(packages | {"neuronx-cc": packages["neuronx-cc"] + "+a9b3c1"}) == name
    assert release_of(packages | {"neuronx-cc": "2.27.5334.0"}) is None
    assert release_of({"neuronx-cc": packages["neuronx-cc"]}) is None
    command = RELEASES[name].install_command()
    assert INDEX in command
    assert f"torch-neuronx=={packages['torch-neuronx']}" in command


def test_the_packages_of_this_environment_are_asked_for() -> None:
    assert set(installed_packages()) <= set(RELEASES["2.31.1"].python)
