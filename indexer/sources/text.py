"""Plain text: no title, everything is text."""

from typing import Any


def parse_text(content: bytes) -> dict[str, Any]:
    """The record of a file of UTF-8 text.

    >>> parse_text(b"Gulls nest on cliffs.\\r\\n")
    {'text': 'Gulls nest on cliffs.'}
    """
    return {"text": decode(content).strip()}


def decode(content: bytes) -> str:
    r"""Bytes as text, without a byte order mark and with `\n` at the end of lines.

    Raises:
        UnicodeDecodeError: Not UTF-8.
    """
    return content.decode("utf-8-sig").replace("\r\n", "\n")
