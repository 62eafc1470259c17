"""Files that are one document each. What a parser makes of the bytes is a record like any other: `_id` is the path
below the folder, and what the file says about itself goes to `metadata`.
"""

import importlib
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, cast

from indexer.documents import BadRecord, Document
from indexer.sources.inputs import Input
from indexer.sources.mapping import Columns, make_document, to_json
from indexer.sources.options import Format
from model.lines import MAX_LINE_BYTES, SourceError, reason, too_long


class _Kind(NamedTuple):
    """How a format is read: by which function of which module, up to how many bytes, with which extra."""

    module: str
    function: str
    max_bytes: int = MAX_LINE_BYTES
    extra: str = ""


_KINDS: dict[Format, _Kind] = {
    "text": _Kind("indexer.sources.text", "parse_text"),
    "markdown": _Kind("indexer.sources.markdown", "parse_markdown"),
    "html": _Kind("indexer.sources.html", "parse_html", extra="html"),
    "pdf": _Kind("indexer.sources.pdf", "parse_pdf", max_bytes=8 * MAX_LINE_BYTES, extra="pdf"),
}


def read_file(input: Input, columns: Columns, stdin: BinaryIO | None) -> Document | BadRecord:
    """The document that a file is.

    Raises:
        SourceError: The extra that reads this format is missing.
    """
    kind, parse = _KINDS[input.format], find_parser(input.format)
    try:
        content = _content(input, stdin, kind.max_bytes + 1)
        if len(content) > kind.max_bytes:
            raise ValueError(too_long(kind.max_bytes))
        return make_document(to_json({"_id": input.id, **parse(content)}), columns, input.name)
    except OSError as error:
        return BadRecord(input.name, 0, error.strerror or str(error), input.name)
    except (ValueError, RecursionError) as error:
        return BadRecord(input.name, 0, reason(error), input.name)


def find_parser(format: Format) -> Callable[[bytes], dict[str, Any]]:
    """The function that makes a record of the bytes of a file.

    Raises:
        SourceError: The extra that has it is missing.
    """
    kind = _KINDS[format]
    try:
        return cast(Callable[[bytes], dict[str, Any]], getattr(importlib.import_module(kind.module), kind.function))
    except ModuleNotFoundError as error:
        raise SourceError(f"{kind.extra.upper()} needs an extra: pip install 'dupmae-search[{kind.extra}]'") from error


def _content(input: Input, stdin: BinaryIO | None, most: int) -> bytes:
    if input.path is None:
        assert stdin is not None, "what is read without a path is standard input"
        return stdin.read(most)
    with input.path.open("rb") as file:
        return file.read(most)
