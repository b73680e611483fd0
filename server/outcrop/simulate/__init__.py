"""Serving in virtual time: the engine's own scheduler against a model of how long steps take."""
