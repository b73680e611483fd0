"""What every checkpoint reader raises."""


class CheckpointError(ValueError):
    """The checkpoint cannot be served; the message names the file, and the field or tensor, at fault."""
