"""Graphs as HLO: the protobuf read and written, every bucket of the model lowered and run on a machine
without a Neuron device, and the bytes counted that a graph moves."""
