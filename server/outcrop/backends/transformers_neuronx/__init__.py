"""The legacy backend: transformers-neuronx, whose support ended with Neuron SDK 2.26."""
