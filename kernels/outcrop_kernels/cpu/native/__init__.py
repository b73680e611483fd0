"""Native kernels of the CPU backend: C++ for three instruction sets, one of which is chosen at run time.

`library` loads and starts them, `operations` are the registry's operations made of them, `recording` turns
a sequence of operations into a program that runs again in one call.
"""
