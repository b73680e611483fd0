"""vLLM behind Outcrop's engine process: in the process itself (`engine.py`), or as a server (`remote.py`)."""
