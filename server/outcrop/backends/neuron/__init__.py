"""Serving from NeuronCores. Not yet run on a device."""
