"""The text of an HTML page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from outcrop.text.documents.plain import decode_text

_HIDDEN = frozenset(("script", "style", "template", "noscript", "svg", "math", "iframe", "object", "select"))
_BLOCKS = re.compile(
    "address|article|aside|body|caption|dd|details|dialog|div|dl|dt|fieldset|figcaption|figure|footer|form|"
    "header|hr|li|main|nav|section|summary|tbody|tfoot|thead|title|tr"
)
_PARAGRAPHS = re.compile("blockquote|h[1-6]|ol|p|pre|table|ul")
_CELLS = frozenset(("td", "th"))
_SPACE = re.compile(r"[ \t\n\f]+")
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([\w-]{1,40})", re.IGNORECASE)


def html_text(data: bytes) -> str:
    """What a reader sees, a line for each block, a blank line around paragraphs and headings, cells apart
    by tabs."""
    declared = _CHARSET.search(data[:4096])
    page = _Page()
    page.feed(decode_text(data, declared[1].decode("ascii") if declared else None))
    page.close()
    return page.text()


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._out = ["\n"]
        self._hidden: list[str] = []  # the hidden element that is open, once for each of its own kind inside
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._hidden:
            self._hidden += [tag] * (tag == self._hidden[0])
        elif tag in _HIDDEN:
            self._hidden = [tag]
        else:
            self._preformatted += tag == "pre"
            self._break(tag)
            if tag == "br":
                self._out.append("\n")
            elif tag == "li":
                self._out.append("- ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _HIDDEN:  # <svg/> hides nothing that follows
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            if tag == self._hidden[0]:
                self._hidden.pop()
            return
        if tag == "pre" and self._preformatted:
            self._preformatted -= 1
        self._break(tag)
        if tag in _CELLS:
            self._out.append("\t")

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if not self._preformatted:
            data = _SPACE.sub(" ", data)
            if self._out[-1][-1:] in " \n\t":
                data = data.lstrip(" ")
        if data:
            self._out.append(data)

    def _break(self, tag: str) -> None:
        if _PARAGRAPHS.fullmatch(tag):
            self._out.append("\n\n")
        elif _BLOCKS.fullmatch(tag):
            self._out.append("\n")

    def text(self) -> str:
        lines = (line.rstrip() for line in "".join(self._out).split("\n"))
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")
