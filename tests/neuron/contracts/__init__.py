"""What Outcrop takes for granted of the Neuron SDK, whose packages few machines have."""
