"""Stands in for libneuronxla."""


def neuron_xla_compile(*arguments: object, **options: object) -> bytes:
    return b"NEFF"
