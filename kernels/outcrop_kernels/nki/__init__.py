"""Kernels in NKI for NeuronCore-v2 (Inf2, Trn1), and the simulator that runs them without the SDK.

`language` gives kernels their `nki`, `nl` and `nisa`; `simulator` says how a kernel is written and run.
"""
