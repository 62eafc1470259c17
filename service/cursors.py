"""The cursor: where the next page of a search begins, signed and kept by nobody.

It holds what a page must agree with: the build, a hash of all that decides which results come in which order, how deep
the search looked, how many results were shown, and a hash of which they were. So two builds never mix, and a live write
that would double or skip a result is noticed, whichever replica made it. One that would not, disturbs nobody.

It can be read by whoever has it, and made or changed only by whoever has the secret.
"""

import binascii
import hashlib
import hmac
import json
import logging
import os
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue, TypeAdapter, ValidationError

LOGGER = logging.getLogger("dupmae.cursors")

SECRET_FILE = "cursor.secret"
SECRET_BYTES = 32
TAG_BYTES = 16


class InvalidCursor(ValueError):
    """Not a cursor of ours, or one of another search."""


class CursorExpired(Exception):
    """What the earlier pages showed is no longer what the search finds."""


class Cursor(NamedTuple):
    """Where a page begins.

    Attributes:
        build: The build that answers.
        search: Hash of what is searched; see `digest`.
        depth: Candidates each side brings; the same for every page.
        offset: Results on the pages before.
        shown: Hash of them.
    """

    build: str
    search: str
    depth: int
    offset: int
    shown: str


_CURSOR = TypeAdapter(Cursor)


class Cursors:
    """Signs cursors, and reads those it or another holder of the secret signed."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def write(self, cursor: Cursor) -> str:
        """A cursor as its caller keeps it.

        >>> cursors = Cursors(b"x" * 32)
        >>> cursors.read(cursors.write(Cursor("b1", "5a", 200, 10, "c4"))).offset
        10
        """
        content = json.dumps(cursor, ensure_ascii=False, separators=(",", ":")).encode()
        return urlsafe_b64encode(self._tag(content) + content).rstrip(b"=").decode()

    def read(self, text: str) -> Cursor:
        """Raises InvalidCursor unless it was signed with our secret."""
        try:
            signed = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
            tag, content = signed[:TAG_BYTES], signed[TAG_BYTES:]
            if hmac.compare_digest(tag, self._tag(content)):
                return _CURSOR.validate_json(content)
        except (UnicodeEncodeError, binascii.Error, ValidationError):
            pass
        raise InvalidCursor(
            "not a cursor that this service signed; send `next_cursor` as it came, or none to begin again. Replicas "
            "take each other's if they share their data folder or DUPMAE_CURSOR_SECRET"
        )

    def _tag(self, content: bytes) -> bytes:
        return hmac.new(self._secret, content, "sha256").digest()[:TAG_BYTES]  # `hmac.digest` lets go of Python's lock


def digest(values: Iterable[JsonValue]) -> str:
    """A short hash by which two lists of values are told apart.

    >>> digest(["a", "b"]) == digest(["ab"]), digest([{"x": 1, "y": 2}]) == digest([{"y": 2, "x": 1}])
    (False, True)
    """
    content = json.dumps(list(values), sort_keys=True, separators=(",", ":")).encode()
    return hashlib.blake2b(content, digest_size=12).hexdigest()


def kept_secret(folder: Path) -> bytes:
    """The secret of everybody who serves from this folder, made by the first of them.

    A folder that cannot be written to keeps none: then cursors are this process's own, and the log says so.
    """
    path = folder / SECRET_FILE
    try:
        if not path.exists():
            _make(path)
        secret = path.read_bytes()
    except OSError as error:
        LOGGER.warning("cursors end with this process, for want of %s: %s; set DUPMAE_CURSOR_SECRET", path, error)
        return secrets.token_bytes(SECRET_BYTES)
    if len(secret) < SECRET_BYTES:
        raise OSError(f"{path} is damaged: {len(secret)} bytes, not {SECRET_BYTES}; delete it")
    return secret


def _make(path: Path) -> None:
    """Whole or not at all; of two who make it at once, the first wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.new")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            path.hardlink_to(fresh)
    finally:
        fresh.unlink(missing_ok=True)
