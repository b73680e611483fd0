"""vllm/v1/engine/exceptions.py."""


class EngineGenerateError(Exception):
    """Recoverable."""


class EngineDeadError(Exception):
    """Unrecoverable."""

    def __init__(self) -> None:
        super().__init__("EngineCore encountered an issue. See stack trace (above) for the root cause.")
