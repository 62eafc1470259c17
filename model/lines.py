"""Lines of a file, plain or compressed, one at a time.

More than `for line in open(path)` because sources come from anywhere: memory stays bounded where a line never ends, and
a damaged or cut archive is an error that names it. A cut `.zst` would otherwise pass for a complete one, since
`zstandard`'s own reader takes the end of the file for the end of the data; and of archives glued together `lzma` and
`bz2` silently leave out the damaged one and all that follow.
"""

import bz2
import gzip
import json
import lzma
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, NoReturn

from pydantic import JsonValue

MAX_LINE_BYTES = 16 * 2**20
"""Longest line that counts as a record."""

PACKED = (".gz", ".bz2", ".xz", ".zst")
"""Endings of files that are unpacked while they are read."""

_CHUNK_BYTES = 2**20
_ZSTD_CHUNK_BYTES = 2**14  # unpacked at once and whole, so small


class SourceError(Exception):
    """A source cannot be read; the message names it and the remedy."""


def read_lines(path: Path) -> Iterator[bytes]:
    """Lines of `path` without their newlines; those in `PACKED` are unpacked.

    A line longer than `MAX_LINE_BYTES` comes cut to one byte more than that.

    Raises:
        SourceError: No such file, a damaged or incomplete archive, or the zstd extra is missing.
    """
    try:
        with path.open("rb") as file:
            yield from split_lines(_chunks(file, path.suffix.lower()))
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if error.errno is None:  # not the system's: gzip and bz2 say so of what they cannot unpack
            raise _damaged(path, error) from error
        raise SourceError(f"{path}: {error.strerror}") from error
    except ModuleNotFoundError as error:
        raise SourceError(f"{path}: .zst needs an extra: pip install 'dupmae-search[zstd]'") from error


def read_chunks(file: IO[bytes] | gzip.GzipFile, size: int = _CHUNK_BYTES) -> Iterator[bytes]:
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


def parse_object(line: bytes) -> dict[str, JsonValue]:
    """The JSON object in a line.

    Raises:
        ValueError: Not UTF-8, not an object, too long, or a value that JSON, UTF-8 or 64 bits cannot hold.
        RecursionError: Nested too deeply.
    """
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(too_long())
    text = line.decode("utf-8-sig")
    record = json.loads(text, parse_constant=refuse_number, parse_float=_finite, parse_int=_int64)
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    if "\\u" in text:  # only an escape can smuggle in half of a surrogate pair, which no encoder takes
        json.dumps(record, ensure_ascii=False).encode()
    return record


def too_long(limit: int = MAX_LINE_BYTES) -> str:
    """What is wrong with more than `limit` bytes, which is a whole number of MiB."""
    return f"longer than {limit // 2**20} MiB"


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
        case ".bz2":
            return _unpack(read_chunks(file), bz2.BZ2Decompressor)
        case ".xz":
            return _unpack(read_chunks(file), lzma.LZMADecompressor)
        case ".zst":
            return _unpack_zstd(read_chunks(file, _ZSTD_CHUNK_BYTES))
        case _:
            return read_chunks(file)


def _unpack(
    chunks: Iterable[bytes], start: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]
) -> Iterator[bytes]:
    """Every stream of an archive to its end, with zeros as padding between them, which xz allows."""
    stream = None
    for chunk in chunks:
        while chunk or (stream and not stream.needs_input):
            if stream is None and not (chunk := chunk.lstrip(b"\0")):
                break
            stream = stream or start()
            yield stream.decompress(chunk, _CHUNK_BYTES)
            chunk, stream = (stream.unused_data, None) if stream.eof else (b"", stream)
    if stream:
        raise EOFError("the last stream has no end")


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


def _damaged(path: Path, error: Exception) -> SourceError:
    return SourceError(f"{path}: damaged or incomplete archive ({error}); fetch or pack it again")


def _finite(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        refuse_number(literal)
    return value


def _int64(literal: str) -> int:
    value = int(literal)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{literal[:30]} does not fit into 64 bits")
    return value
