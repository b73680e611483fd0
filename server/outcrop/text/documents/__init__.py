"""Documents that come with a message: their text, and how it stands in the prompt."""

from outcrop.text.documents.errors import DocumentError
from outcrop.text.documents.extract import extract_text
from outcrop.text.documents.prompt import document_prompt

__all__ = ["DocumentError", "document_prompt", "extract_text"]
