"""The engines that a suite can be run with: what `--engine` takes."""

OWN = "own"
"""Outcrop's, on a model that the suite chooses."""

IN_PROCESS = "vllm"
"""vLLM in the engine process, on the demo weights."""

SERVER = "vllm-server"
"""A vLLM server beside it, on the demo weights."""

ENGINES = (OWN, IN_PROCESS, SERVER)
