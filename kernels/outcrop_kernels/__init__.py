"""Accelerated operations behind one registry: readable reference, CPU and NKI implementations."""
