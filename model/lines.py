"""Lines of a file, plain or compressed, one at a time.

More than `for line in open(path)` because sources come from anywhere: memory stays bounded where a line never ends, and
a damaged or cut archive is an error that names it. A cut `.zst` would otherwise pass for a complete one, since
`zstandard`'s own reader takes the end of the file for the end of the data.
"""

import gzip
import json
import lzma
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, NoReturn

MAX_LINE_BYTES = 16 * 2**20
"""Longest line that counts as a record."""

_CHUNK_BYTES = 2**20
_ZSTD_CHUNK_BYTES = 2**14  # unpacked at once and whole, so small


class SourceError(Exception):
    """A source cannot be read; the message names it and the remedy."""


def read_lines(path: Path) -> Iterator[bytes]:
    """Lines of `path` without their newlines; `.gz`, `.xz` and `.zst` are unpacked.

    A line longer than `MAX_LINE_BYTES` comes cut to one byte more than that.

    Raises:
        SourceError: No such file, a damaged or incomplete archive, or the zstd extra is missing.
    """
    try:
        with path.open("rb") as file:
            yield from split_lines(_chunks(file, path.suffix))
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise SourceError(f"{path}: damaged or incomplete archive ({error}); fetch or pack it again") from error
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from error
    except ModuleNotFoundError as error:
        raise SourceError(f"{path}: .zst needs an extra: pip install 'dupmae-search[zstd]'") from error


def read_chunks(file: IO[bytes] | gzip.GzipFile | lzma.LZMAFile, size: int = _CHUNK_BYTES) -> Iterator[bytes]:
    """The bytes of an open file, `size` at a time."""
    return iter(partial(file.read, size), b"")


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    r"""Lines of a stream of bytes, each without its newline and cut to `MAX_LINE_BYTES + 1`.

    >>> list(split_lines([b"on", b"e\ntwo\n", b"three"]))
    [b'one', b'two', b'three']
    """
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line[: MAX_LINE_BYTES + 1] for line in lines)
        rest = rest[: MAX_LINE_BYTES + 1]
    if rest:
        yield rest


def reason(error: Exception) -> str:
    """What is wrong with a line, in words for the person who wrote it."""
    match error:
        case json.JSONDecodeError():
            return f"not JSON: {error.msg} at column {error.colno}"
        case UnicodeDecodeError():
            return f"not UTF-8: byte {error.object[error.start]:#04x} at {error.start}"
        case UnicodeEncodeError():
            return "half of a surrogate pair, which is not text"
        case RecursionError():
            return "nested too deeply"
        case _:
            return str(error)


def refuse_number(literal: str) -> NoReturn:
    """For `json.loads(parse_constant=...)`: NaN and infinity are Python's, not JSON's."""
    raise ValueError(f"{literal} is not a JSON number")


def _chunks(file: IO[bytes], suffix: str) -> Iterator[bytes]:
    match suffix:
        case ".gz":
            return read_chunks(gzip.open(file, "rb"))
        case ".xz":
            return read_chunks(lzma.open(file, "rb"))
        case ".zst":
            return _unpack_zstd(read_chunks(file, _ZSTD_CHUNK_BYTES))
        case _:
            return read_chunks(file)


def _unpack_zstd(chunks: Iterable[bytes]) -> Iterator[bytes]:
    import zstandard

    unpacker = zstandard.ZstdDecompressor()
    frame = None
    try:
        for chunk in chunks:
            while chunk:
                frame = frame or unpacker.decompressobj()
                yield frame.decompress(chunk)
                chunk, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from error
    if frame:
        raise EOFError("the last frame has no end")
