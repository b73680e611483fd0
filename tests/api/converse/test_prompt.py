"""What a conversation becomes in the prompt: turns, system messages, documents, other people's text."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from ..server import Server
from .requests import TEXT, assistant, converse, document, message_of, user


def prompt_of(server: Server) -> str:
    return bytes(server.engine.requests[-1].prompt).decode()


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


NOTES = document("My notes", text="Buy milk.")
PROMPTS: dict[str, tuple[list[Any], str]] = {
    "turns in a row by one role": ([user(TEXT), user({"text": "there"})], "user: Hi\nthere\n"),
    "a system message on the way": (
        [user(TEXT), {"role": "system", "content": [{"text": "Be brief."}]}, user({"text": "Go"})],
        "user: Hi\nsystem: Be brief.\nuser: Go\n",
    ),
    "reasoning is left out": (
        [
            user(TEXT),
            assistant({"reasoningContent": {"reasoningText": {"text": "hm"}}}, {"text": "Yes"}),
            user(TEXT),
        ],
        "user: Hi\nassistant: Yes\nuser: Hi\n",
    ),
    "text of a document": (
        [user(NOTES, TEXT)],
        'user: <document name="My notes">\nBuy milk.\n</document>\nHi\n',
    ),
    "parts of a document": (
        [user(TEXT, document("n", content=[{"text": "a"}, {"text": "b"}]))],
        'user: Hi\n<document name="n">\na\nb\n</document>\n',
    ),
    "bytes of a document": (
        [user(TEXT, {"document": {"name": "n", "format": "txt", "source": {"bytes": encoded("über")}}})],
        'user: Hi\n<document name="n">\nüber\n</document>\n',
    ),
    "a document's context": (
        [user(TEXT, {"document": {"name": "n", "context": "A list.", "source": {"text": "a"}}})],
        'user: Hi\n<document name="n">\nA list.\na\n</document>\n',
    ),
    "a search result": (
        [user(TEXT, {"searchResult": {"source": "http://x", "title": "X", "content": [{"text": "y"}]}})],
        'user: Hi\n<document name="X">\nhttp://x\ny\n</document>\n',
    ),
    "guarded text": ([user({"guardContent": {"text": {"text": "Hello"}}})], "user: Hello\n"),
    "cited text": (
        [
            user(TEXT),
            assistant({"citationsContent": {"content": [{"text": "As "}, {"text": "said"}]}}),
            user(TEXT),
        ],
        "user: Hi\nassistant: As said\nuser: Hi\n",
    ),
    "cache points": ([user(TEXT, {"cachePoint": {"type": "default"}}, {"text": "b"})], "user: Hi\nb\n"),
}


@pytest.mark.parametrize(("messages", "prompt"), PROMPTS.values(), ids=PROMPTS)
def test_prompts(http: httpx.Client, server: Server, messages: list[Any], prompt: str) -> None:
    response = converse(http, *messages)
    assert response.status_code == 200, response.text
    assert prompt_of(server) == prompt


def test_the_system_prompt(http: httpx.Client, server: Server) -> None:
    guarded = {"guardContent": {"text": {"text": "Be kind."}}}
    converse(http, system=[{"text": "Be brief."}, {"cachePoint": {"type": "default"}}, guarded])
    assert prompt_of(server) == "system: Be brief.\nBe kind.\nuser: Hi\n"


PICTURE = {"format": "png", "source": {"bytes": "eA=="}}
REFUSED: dict[str, tuple[list[Any], str]] = {
    "a document by itself": ([user(NOTES)],
        "A text block must be included when using documents. Add a text block and retry your request."),
    "a document of the assistant": ([user(TEXT), assistant(TEXT, NOTES), user(TEXT)],
        "Assistant messages cannot contain documents. Please remove the documents and try again."),
    "a document in a system message": ([user(TEXT), {"role": "system", "content": [TEXT, NOTES]}],
        "System messages cannot contain documents. Please remove the documents and try again."),
    "six documents": ([user(TEXT, *(document(f"n{n}", text="x") for n in range(6)))],
        "You can't include more than 5 documents in a request. Remove documents and retry your request."),
    "two of one name": ([user(TEXT, NOTES), assistant(TEXT), user(TEXT, NOTES)],
        "Messages can't contain duplicate document names. Rename the document and retry your request."),
    "a file name": ([user(TEXT, document("notes.txt", text="x"))],
        "The document file name can only contain alphanumeric characters, whitespace characters, hyphens, "
        "parentheses, and square brackets. The name can't contain more than one consecutive whitespace "
        "character. Check that the file name conforms to these restrictions and retry your request."),
    "a document elsewhere": ([user(TEXT, document("n", s3Location={"uri": "s3://bucket/key"}))],
        "This model doesn't support the document.source.s3Location field. "
        "Remove document.source.s3Location and try again."),
    "bytes of no format": ([user(TEXT, document("n", bytes="eA=="))],
        "The format field in the DocumentBlock object at messages.0.content.1.document is required when the "
        "source is bytes. Add the format and retry your request."),
    "an audio block": ([user(TEXT, {"audio": {"format": "mp3", "source": {"bytes": "eA=="}}})],
        "This model doesn't support the audio content block that you provided. "
        "Update the content block and try again."),
    "a guarded image": ([user(TEXT, {"guardContent": {"image": PICTURE}})],
        "This model doesn't support the image content block that you provided. "
        "Update the content block and try again."),
    "an image that is none": ([user(TEXT, {"image": PICTURE | {"format": "bmp"}})],
        "1 validation error detected: Value 'bmp' at 'messages.1.member.content.2.member.image.format' "
        "failed to satisfy constraint: Member must satisfy enum value set: [png, jpeg, gif, webp]"),
}  # fmt: skip


@pytest.mark.parametrize(("messages", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(http: httpx.Client, server: Server, messages: list[Any], message: str) -> None:
    assert message_of(converse(http, *messages)) == message
    assert not server.engine.requests


@pytest.mark.parametrize("name", ["A b", "a-b_c", "(1) [2]", "x" * 200])
def test_names_of_documents(http: httpx.Client, name: str) -> None:
    assert converse(http, user(TEXT, document(name, text="x"))).status_code == 200


def test_a_document_that_is_too_large(http: httpx.Client) -> None:
    data = base64.b64encode(bytes(4_500_001)).decode()
    message = message_of(converse(http, user(TEXT, document("n", bytes=data))))
    assert message.startswith(
        "The document at messages.0.content.1.document is larger than the limit of 4.5 MB"
    )


def test_a_document_that_cannot_be_read(http: httpx.Client, server: Server) -> None:
    block = {"document": {"name": "n", "format": "pdf", "source": {"bytes": encoded("no pdf")}}}
    message = message_of(converse(http, user(TEXT, block)))
    assert message.startswith("The document at messages.0.content.1.document could not be read: ")
    assert not server.engine.requests


def test_a_document_that_exceeds_the_context(http: httpx.Client) -> None:
    message = message_of(converse(http, user(TEXT, document("n", text="x" * 600))))
    assert "maximum context length is 512 tokens" in message
