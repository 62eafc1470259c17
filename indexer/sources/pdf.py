"""PDF: the text of its pages, as far as it holds text and not pictures of it."""

import logging
from io import BytesIO
from typing import Any

from pypdf import PdfReader
from pypdf.errors import FileNotDecryptedError


def parse_pdf(content: bytes) -> dict[str, Any]:
    """The record of a file: pages apart by an empty line, and their number as metadata.

    Raises:
        ValueError: Damaged, locked by a password, or without text.
    """
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns of every flaw that it can read over
    try:
        reader = PdfReader(BytesIO(content))
        pages = [page.extract_text().strip() for page in reader.pages]
        title = reader.metadata.title if reader.metadata else None
    except FileNotDecryptedError as error:
        raise ValueError("locked by a password") from error
    except Exception as error:  # a broken file makes the parser raise anything; it is a bad record
        raise ValueError(f"damaged, or no PDF: {error or type(error).__name__}") from error
    if not any(pages):
        raise ValueError("no text on its pages; if they are pictures, run text recognition (OCR) first")
    return {"title": title, "text": "\n\n".join(filter(None, pages)), "metadata": {"pages": len(pages)}}
