"""What opening, checking and moving an artifact raises. Each message ends in the command that mends it."""

from __future__ import annotations


class ArtifactError(ValueError):
    """An artifact cannot be used; the message says what is wrong with it and what to do."""


class DamagedArtifact(ArtifactError):
    """A file of an artifact is missing, or not what its manifest says.

    file: its path in the artifact, or the object's name in a store.
    """

    def __init__(self, file: str, what: str, mend: str) -> None:
        super().__init__(f"{file}: {what}. Mend it with: {mend}")
        self.file = file


class ArtifactMismatch(ArtifactError):
    """An artifact was made for something else.

    field: the dotted name of the manifest's field that differs. found: what the manifest has. wanted: what
    this place has. mend: the command that makes both agree.
    """

    def __init__(self, field: str, found: object, wanted: object, mend: str) -> None:
        super().__init__(
            f"the artifact's {field} is {found}, but here it has to be {wanted}. Mend it with: {mend}"
        )
        self.field = field
        self.mend = mend
