"""The text of documents: what is read, and what a hostile file cannot do."""

from __future__ import annotations

import io
import zipfile
import zlib
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outcrop.text.documents import DocumentError, document_prompt, extract_text
from outcrop.text.documents.extract import MAX_CHARS

# Files


def pdf(*pages: str, padding: int = 0) -> bytes:
    """A minimal PDF with a line of text on each page, and that many blanks behind it."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]>>".encode(),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for i, text in enumerate(pages):
        objects.append(
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents {5 + 2 * i} 0 R"
            "/Resources<</Font<</F 3 0 R>>>>>>".encode()
        )
        stream = zlib.compress(f"BT /F 12 Tf 50 700 Td ({text}) Tj ET".encode() + b" " * padding)
        objects.append(b"<</Filter/FlateDecode/Length %d>>\nstream\n%s\nendstream" % (len(stream), stream))
    body = b"%PDF-1.4\n"
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    count = len(objects) + 1
    return body + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF"
        % (count, table, count, len(body))
    )


def archive(members: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return packed.getvalue()


def docx(body: str) -> bytes:
    namespace = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    return archive(
        {"word/document.xml": f'<w:document xmlns:w="{namespace}"><w:body>{body}</w:body></w:document>'}
    )


def paragraph(text: str) -> str:
    tabs = "<w:pPr><w:tabs><w:tab/></w:tabs></w:pPr>"
    return f'<w:p>{tabs}<w:r><w:t xml:space="preserve">{escape(text)}</w:t></w:r></w:p>'


def xlsx(rows: list[list[str]]) -> bytes:
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    package = "http://schemas.openxmlformats.org/package/2006"
    relations = f"{package}/relationships"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    cells = "".join(f"<row>{''.join(row)}</row>" for row in rows)
    types = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    return archive(
        {
            "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{types}.sheet.main+xml"/></Types>',
            "_rels/.rels": f'<Relationships xmlns="{relations}">'
            f'<Relationship Id="r1" Type="{office}/officeDocument" Target="xl/workbook.xml"/>'
            "</Relationships>",
            "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
            '<sheet name="Sales" sheetId="1" r:id="r1"/></sheets></workbook>',
            "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{relations}">'
            f'<Relationship Id="r1" Type="{office}/worksheet" Target="worksheets/s.xml"/>'
            "</Relationships>",
            "xl/worksheets/s.xml": f'<worksheet xmlns="{main}"><sheetData>{cells}</sheetData></worksheet>',
        }
    )


def number(value: float) -> str:
    return f"<c><v>{value}</v></c>"


def words(text: str) -> str:
    return f'<c t="inlineStr"><is><t>{text}</t></is></c>'


# What is read


@pytest.mark.parametrize("format", ["txt", "md", "csv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_plain_text(format: str, encoding: str) -> None:
    assert extract_text(format, "Größe;1\r\nWert;2\r".encode(encoding)) == "Größe;1\nWert;2\n"


@given(data=st.binary())
def test_any_bytes_are_text_or_refused(data: bytes) -> None:
    try:
        assert "\0" not in extract_text("txt", data)
    except DocumentError:
        assert b"\0" in data


def test_pdf() -> None:
    assert extract_text("pdf", pdf("Hello world", "Second page")) == "Hello world\n\nSecond page"


def test_docx() -> None:
    cell = "<w:tc>{}</w:tc>"
    row = f"<w:tr>{cell.format(paragraph('a'))}{cell.format(paragraph('b') + paragraph('c'))}</w:tr>"
    body = (
        paragraph("A <title> & more")
        + f"<w:tbl>{row}{row}</w:tbl>"
        + "<w:p><w:r><w:t>one</w:t><w:tab/><w:t>two</w:t><w:br/><w:t>three</w:t></w:r>"
        "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p>"
    )
    assert extract_text("docx", docx(body)) == "A <title> & more\na \tb c \t\na \tb c \t\none\ttwo\nthree\n"


def test_xlsx() -> None:
    rows = [[words("Region"), words("Sum")], [words("North"), number(12.0)], [words("South"), number(0.5)]]
    assert extract_text("xlsx", xlsx(rows)) == "# Sales\nRegion\tSum\nNorth\t12\nSouth\t0.5\n"


def test_html() -> None:
    page = (
        "<!doctype html><html><head><title>T&eacute;st</title><style>p {}</style></head><body>"
        "<h1>Hi</h1><p>Some <b>bold</b>\n   text &amp; more.<br>Next</p><script>if (a < b) x('</p>')</script>"
        "<ul><li>one<li>two</ul><table><tr><th>a<th>b<tr><td>1</td><td>2</td></table>"
        "<pre>  keep\n    this</pre><svg><svg></svg><text>no</text></svg>&lt;end&gt;"
    )
    assert extract_text("html", page.encode()).split("\n") == [
        "Tést", "", "Hi", "", "Some bold text & more.", "Next", "",
        "- one", "- two", "", "ab", "1\t2", "", "  keep", "    this", "", "<end>",
    ]  # fmt: skip


def test_html_in_the_encoding_that_it_declares() -> None:
    page = '<meta charset="koi8-r"><p>Привет'.encode("koi8-r")
    assert extract_text("html", page) == "Привет"
    assert extract_text("html", page.replace(b"koi8-r", b"bogus1")) == "ðÒÉ×ÅÔ"


# What is refused


@pytest.mark.parametrize("format", ["doc", "rtf"])
def test_formats_that_are_not_read(format: str) -> None:
    with pytest.raises(DocumentError, match=f"documents of the format {format} are not supported"):
        extract_text(format, b"x")


@pytest.mark.parametrize(
    ("format", "data"),
    [
        ("pdf", b""),
        ("pdf", b"%PDF-1.7\n%%EOF"),
        ("docx", b"PK\x03\x04junk"),
        ("docx", archive({"a": "b"})),
        ("docx", docx("</w:p>")),
        ("xlsx", b""),
        ("xlsx", archive({"a": "b"})),
        ("xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1junk"),
    ],
)
def test_broken_files(format: str, data: bytes) -> None:
    with pytest.raises(DocumentError, match="it is not a"):
        extract_text(format, data)


def test_binary_data_is_not_text() -> None:
    with pytest.raises(DocumentError, match="not text in a known encoding"):
        extract_text("txt", b"\x7fELF\0\0\0")


def test_pdf_without_text() -> None:
    with pytest.raises(DocumentError, match="holds no text"):
        extract_text("pdf", pdf(""))


def test_too_much_text() -> None:
    with pytest.raises(DocumentError, match=f"more than {MAX_CHARS} characters"):
        extract_text("txt", b"x" * (MAX_CHARS + 1))
    with pytest.raises(DocumentError, match=f"more than {MAX_CHARS} characters"):
        extract_text("docx", docx(paragraph("x" * (MAX_CHARS + 1))))


def test_docx_bomb() -> None:
    with pytest.raises(DocumentError, match="more than 64 MB"):
        extract_text("docx", docx("<w:p/>" * (12 << 20)))


def test_xml_entities_do_not_multiply() -> None:
    entities = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(9))
    bomb = f'<!DOCTYPE d [<!ENTITY e0 "ha">{entities}]><d><t>&e9;</t></d>'
    with pytest.raises(DocumentError, match="it is not a valid docx file"):
        extract_text("docx", archive({"word/document.xml": bomb}))


def test_a_sheet_that_claims_all_of_a_workbook_ends() -> None:
    far = '<c r="XFD1048576"><v>1</v></c>'
    with pytest.raises(DocumentError, match=r"too large or|too much memory"):
        extract_text("xlsx", xlsx([['<c r="A1"><v>1</v></c>'], [far]]))


def test_pdf_bomb_ends() -> None:
    with pytest.raises(DocumentError, match=r"too large or|too much memory|not a valid"):
        extract_text("pdf", pdf("x", padding=100 << 20))


# In the prompt


def test_document_prompt() -> None:
    assert document_prompt('a "b" <c>', "\ntext\n") == (
        "<document name='a \"b\" &lt;c&gt;'>\ntext\n</document>"
    )
