"""Shapes of citations: parts of earlier answers, of which a prompt keeps the text."""

from __future__ import annotations

from typing import Annotated

from outcrop.api.shapes import Must, Shape, Union

_INDEX = Must(value=(0, None))


class WebLocation(Shape):
    url: str | None = None
    domain: str | None = None


class DocumentCharLocation(Shape):
    document_index: Annotated[int | None, _INDEX] = None
    start: Annotated[int | None, _INDEX] = None
    end: Annotated[int | None, _INDEX] = None


class DocumentPageLocation(Shape):
    document_index: Annotated[int | None, _INDEX] = None
    start: Annotated[int | None, _INDEX] = None
    end: Annotated[int | None, _INDEX] = None


class DocumentChunkLocation(Shape):
    document_index: Annotated[int | None, _INDEX] = None
    start: Annotated[int | None, _INDEX] = None
    end: Annotated[int | None, _INDEX] = None


class SearchResultLocation(Shape):
    search_result_index: Annotated[int | None, _INDEX] = None
    start: Annotated[int | None, _INDEX] = None
    end: Annotated[int | None, _INDEX] = None


class CitationLocation(Union):
    web: WebLocation | None = None
    document_char: DocumentCharLocation | None = None
    document_page: DocumentPageLocation | None = None
    document_chunk: DocumentChunkLocation | None = None
    search_result_location: SearchResultLocation | None = None


class CitationSourceContent(Union):
    text: str | None = None


class Citation(Shape):
    title: str | None = None
    source: str | None = None
    source_content: list[CitationSourceContent] | None = None
    location: CitationLocation | None = None


class CitationGeneratedContent(Union):
    text: str | None = None


class CitationsContentBlock(Shape):
    content: list[CitationGeneratedContent] | None = None
    citations: list[Citation] | None = None
