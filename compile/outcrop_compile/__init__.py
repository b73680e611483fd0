"""Checkpoint and target in, artifact out: the model definition and everything that prepares it."""
