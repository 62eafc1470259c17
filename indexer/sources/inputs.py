"""What a source stands for: standard input, one file, a BEIR folder, or a folder of files.

One rule for folders: a folder that holds `corpus.jsonl` is that file; any other is a folder of documents, one a file,
unless a format is named, and then of the files of that format. So a stray table beside notes is never read by chance.
"""

import io
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO

from indexer.documents import BadRecord, find_jsonl
from indexer.sources.options import Format
from model.lines import PACKED, SourceError

STDIN = "-"
"""The source that stands for standard input."""

SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".tsv": "tsv",
    ".csv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
}
LINES: tuple[Format, ...] = ("jsonl", "tsv", "csv")
FILES: tuple[Format, ...] = ("text", "markdown", "html", "pdf")


def standard_input() -> BinaryIO | None:
    """Standard input, to be read in a thread; None when the process has none.

    Not `sys.stdin`: a thread that waits in it holds its lock, and Python aborts when it ends and cannot have that.
    """
    if sys.stdin is None:
        return None
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except io.UnsupportedOperation:  # something else stands in for it, which has no descriptor
        return sys.stdin.buffer


@dataclass(frozen=True, slots=True)
class Input:
    """Something to read from its beginning to its end.

    Attributes:
        format: What it holds.
        path: Where; None is standard input.
        id: The id of its document, if it is one.
    """

    format: Format
    path: Path | None
    id: str = STDIN

    @property
    def name(self) -> str:
        """For messages."""
        return readable(self.path) if self.path else STDIN


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder whose files are read one by one, in the order of their names, those of subfolders included.

    Attributes:
        path: Where.
        format: Of the files that are read; None reads those of every kind in `FILES`.
    """

    path: Path
    format: Format | None

    def inputs(self) -> Iterator[Input | BadRecord]:
        """Its files, found while they are read; a subfolder that cannot be listed is a bad record."""
        for entry in _walk(self.path):
            if isinstance(entry, BadRecord):
                yield entry
            elif (format := self._format(path := Path(entry.path))) and entry.is_file():
                yield Input(format, path, path.relative_to(self.path).as_posix())

    def unread(self) -> Counter[str]:
        """How many files are left out, by suffix. Hidden ones are no part of the folder."""
        counts = Counter[str]()
        for entry in _walk(self.path):
            if isinstance(entry, BadRecord):
                continue
            path = Path(entry.path)
            if not entry.is_file():
                counts["links to folders and special files"] += 1
            elif not self._format(path):
                counts[readable(PurePath(path.suffix)) if path.suffix else "no suffix"] += 1
        return counts

    def _format(self, path: Path) -> Format | None:
        format = named_format(path)
        readable = format in LINES or not _is_packed(path)
        wanted = format in FILES if self.format is None else format == self.format
        return format if wanted and readable else None


def locate(source: str | Path, format: Format | None) -> Input | Folder:
    """What a source stands for.

    Raises:
        SourceError: It is missing, a file whose name does not tell its format, or a folder without a file to read.
    """
    if str(source) == STDIN:
        return Input(format or "jsonl", None)
    path = Path(source)
    try:
        path.stat()
    except (OSError, ValueError) as error:
        raise SourceError(f"{readable(path)}: {getattr(error, 'strerror', None) or error}") from error
    if path.is_dir():
        corpus = None if format else find_jsonl(path, "corpus")
        return Input("jsonl", corpus) if corpus else _folder(path, format)
    found = format or named_format(path)
    if found is None:
        raise SourceError(
            f"{readable(path)}: its name does not tell what it holds; say --format, or name it one of "
            f"{', '.join(SUFFIXES)} (those of records packed or not: {', '.join(PACKED)})"
        )
    if _is_packed(path) and found not in LINES:
        raise SourceError(f"{readable(path)}: {found} is not read out of an archive; unpack it first")
    return Input(found, path, path.name)


def named_format(path: PurePath) -> Format | None:
    """The format that a file's name tells.

    >>> named_format(PurePath("birds.CSV.gz"))
    'csv'
    """
    suffix = PurePath(path.stem).suffix if _is_packed(path) else path.suffix
    return SUFFIXES.get(suffix.lower())


def readable(path: PurePath) -> str:
    """A path as text that can be printed and stored, whatever bytes its name is made of."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _is_packed(path: PurePath) -> bool:
    return path.suffix.lower() in PACKED


def _folder(path: Path, format: Format | None) -> Folder:
    folder = Folder(path, format)
    if next(folder.inputs(), None) is None:
        unread = ", ".join(f"{count} {suffix}" for suffix, count in sorted(folder.unread().items())) or "none"
        wanted = f"no {format} files" if format else "neither corpus.jsonl nor text, Markdown, HTML or PDF files"
        raise SourceError(
            f"{readable(path)}: holds {wanted} (other files: {unread}); name the files, or say --format, such as "
            "--format parquet, to read all of a format"
        )
    return folder


def _walk(folder: Path) -> Iterator[os.DirEntry[str] | BadRecord]:
    """Everything below a folder but folders and what is hidden; links to folders come, but are not gone into."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        yield BadRecord(readable(folder), 0, error.strerror or str(error), readable(folder))
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        else:
            yield entry
