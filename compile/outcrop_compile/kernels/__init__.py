"""What NKI kernels cost in a model's steps, by the counts of their simulator."""
