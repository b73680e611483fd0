"""Refuses, on any machine, what neuronx-cc refuses or does badly on NeuronCore-v2: the rules as data, and a
linter over HLO from anyone. No torch, no XLA, no protobuf."""
