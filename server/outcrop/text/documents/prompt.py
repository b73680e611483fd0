"""How a document stands in a prompt."""

from __future__ import annotations

from xml.sax.saxutils import quoteattr


def document_prompt(name: str, text: str) -> str:
    """The document's text between tags that give its name, on lines of their own."""
    return f"<document name={quoteattr(name)}>\n{text.strip()}\n</document>"
