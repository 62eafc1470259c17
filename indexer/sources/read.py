"""Sources to documents: every record of every source, in order."""

import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from indexer.documents import BadRecord, Document, is_record
from indexer.sources.files import find_parser, read_file
from indexer.sources.inputs import Folder, Input, locate
from indexer.sources.mapping import Columns, make_document
from indexer.sources.options import ReadOptions
from indexer.sources.parquet import count_parquet, read_parquet
from indexer.sources.tables import count_csv, count_tsv, read_csv, read_tsv
from model.lines import SourceError, parse_object, read_chunks, read_lines, reason, split_lines

_DEFAULTS = ReadOptions()


def read_documents(
    sources: Iterable[str | Path], stdin: BinaryIO | None = None, options: ReadOptions = _DEFAULTS
) -> Iterator[Document | BadRecord]:
    """Every record of every source, in order; memory does not grow with their number.

    An id may occur more than once; see `indexer.documents.distinct`.

    Args:
        sources: Files, folders, or `-`.
        stdin: What `-` reads.
        options: Formats and columns.

    Raises:
        SourceError: A source is missing, damaged, of an unknown format, without the columns of a document, or needs an
            extra. Each is looked up before the first is read.
    """
    for located in [locate(source, options.format) for source in sources]:
        for input in located.inputs() if isinstance(located, Folder) else [located]:
            if isinstance(input, BadRecord):
                yield input
            else:
                yield from _read(input, stdin, options.columns)


def count_records(sources: Iterable[str | Path], options: ReadOptions = _DEFAULTS) -> int | None:
    """Records in all sources, good or bad, in one pass that parses none of them; None when one can be read only once.

    Of CSV with wrong quotes it is an estimate.

    Raises:
        SourceError: As `read_documents`.
    """
    located = [locate(source, options.format) for source in sources]
    if any(isinstance(input, Input) and not _is_rereadable(input) for input in located):
        return None
    return sum(
        1 if isinstance(input, BadRecord) else _count(input, options.columns)
        for one in located
        for input in (one.inputs() if isinstance(one, Folder) else [one])
    )


def unread_files(sources: Iterable[str | Path], options: ReadOptions = _DEFAULTS) -> Counter[str]:
    """How many files in folders are left out since their format is not read there, by suffix.

    Raises:
        SourceError: As `read_documents`.
    """
    located = [locate(source, options.format) for source in sources]
    return sum((one.unread() for one in located if isinstance(one, Folder)), Counter[str]())


def _read(input: Input, stdin: BinaryIO | None, columns: Columns) -> Iterator[Document | BadRecord]:
    match input.format:
        case "jsonl":
            yield from _read_jsonl(_lines(input, stdin), input.name, columns)
        case "tsv":
            yield from read_tsv(_lines(input, stdin), input.name, columns)
        case "csv":
            yield from read_csv(_lines(input, stdin), input.name, columns)
        case "parquet":
            yield from read_parquet(_path(input), input.name, columns)
        case _:
            yield read_file(input, columns, _connected(stdin) if input.path is None else None)


def _count(input: Input, columns: Columns) -> int:
    match input.format:
        case "jsonl":
            return sum(map(is_record, _lines(input)))
        case "tsv":
            return count_tsv(_lines(input), input.name, columns)
        case "csv":
            return count_csv(_lines(input))
        case "parquet":
            return count_parquet(_path(input), input.name)
        case _:
            find_parser(input.format)
            return 1


def _read_jsonl(lines: Iterable[bytes], name: str, columns: Columns) -> Iterator[Document | BadRecord]:
    for number, line in enumerate(lines, start=1):
        if is_record(line):
            try:
                yield make_document(parse_object(line), columns, name, number)
            except (ValueError, RecursionError) as error:
                yield BadRecord(name, number, reason(error), line.decode("utf-8", "backslashreplace"))


def _lines(input: Input, stdin: BinaryIO | None = None) -> Iterator[bytes]:
    return read_lines(input.path) if input.path else split_lines(read_chunks(_connected(stdin)))


def _connected(stdin: BinaryIO | None) -> BinaryIO:
    if stdin is None:
        raise SourceError("-: standard input is not connected")
    return stdin


def _path(input: Input) -> Path:
    if input.path is None:
        raise SourceError(f"-: {input.format} is read from its end, which standard input has not; name a file")
    return input.path


def _is_rereadable(input: Input) -> bool:
    return input.path is not None and stat.S_ISREG(input.path.stat().st_mode)
