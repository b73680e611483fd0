"""What goes wrong with documents."""

from __future__ import annotations


class DocumentError(ValueError):
    """The document cannot be read; the message is for the client, of whose document it says what "it" is."""
