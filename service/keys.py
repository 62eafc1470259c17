"""Keys, and the file that keeps them: who may do what, until when, and how often.

A secret is 256 random bits and is kept as its SHA-256. Slow hashes are for passwords, of which there are few enough to
try; here an attacker with the file would have to try 2^255, and every request would pay for the slowness.

The file is replaced as a whole under a lock, so a service that reads it meanwhile sees the one before or the one after.
"""

import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import portalocker
from portalocker import LockFlags
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from indexer.store import INDEX_NAME
from model.atomic import sync
from service.caller import Caller, Scope, Tenant

PREFIX = "dupmae_"
"""Begins every secret, so that scanners of repositories and of logs know one when they see it."""

SECRET_BYTES = 32
SECRET = re.compile(re.escape(PREFIX) + r"[A-Za-z0-9_-]{43}")
KEY_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"


class KeysError(Exception):
    """The key file cannot be used, or not be changed so; the message names it and the remedy."""


class Rate(BaseModel):
    """How many requests a key may send: `per_second` in the long run, `burst` at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_second: float = Field(gt=0, le=1e6)
    burst: int = Field(ge=1, le=1_000_000)


class Key(BaseModel):
    """What is kept of one key.

    Attributes:
        name: Stands in logs instead of the secret.
        sha256: Of the secret, in hexadecimal.
        scopes: What it may do.
        indexes: The only ones it may use; None for all.
        tenant: The only documents it may see; None for all.
        rate: None for no limit of its own.
        created: When.
        expires: When it ceases to be one; None for never.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=f"^{KEY_NAME}$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    scopes: tuple[Scope, ...] = Field(min_length=1)
    indexes: tuple[Annotated[str, Field(pattern=f"^{INDEX_NAME.pattern}$")], ...] | None = Field(None, min_length=1)
    tenant: Tenant | None = None
    rate: Rate | None = None
    created: AwareDatetime
    expires: AwareDatetime | None = None

    def expired(self, now: datetime) -> bool:
        """Whether it is none any more."""
        return self.expires is not None and self.expires <= now

    @property
    def caller(self) -> Caller:
        """Who sends a request with this key."""
        indexes = None if self.indexes is None else frozenset(self.indexes)
        return Caller(self.name, frozenset(self.scopes), indexes, self.tenant)


class _Keys(BaseModel):
    """The content of the file."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    keys: tuple[Key, ...] = ()


def digest(secret: str) -> str:
    """What is kept of a secret.

    >>> digest("dupmae_secret")[:16]
    '7c4403eac20fadca'
    """
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def redact(text: str) -> str:
    """The text without secrets, which people put into URLs and request ids.

    >>> redact("/v1/documents/dupmae_" + 43 * "x")
    '/v1/documents/dupmae_***'
    """
    return SECRET.sub(PREFIX + "***", text)


def read_keys(path: Path) -> tuple[Key, ...] | None:
    """The keys of a file; None when there is no such file.

    Raises:
        KeysError: It cannot be read, or is not one of ours.
    """
    try:
        keys = _Keys.model_validate_json(path.read_bytes()).keys
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeysError(f"cannot read the keys in {path}: {error.strerror}; let this user read it") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise KeysError(
            f"the key file {path} is damaged: {place}: {first['msg']}; put it back from a backup, or delete it and "
            "create the keys again"
        ) from error
    if len({key.name for key in keys}) < len(keys) or len({key.sha256 for key in keys}) < len(keys):
        raise KeysError(f"the key file {path} is damaged: a name or a secret is there twice; remove one of the two")
    return keys


def create_key(
    path: Path,
    name: str,
    scopes: Sequence[Scope],
    *,
    indexes: Sequence[str] = (),
    tenant: Tenant | None = None,
    rate: Rate | None = None,
    expires: datetime | None = None,
) -> str:
    """Add a key, and return its secret, which is kept nowhere.

    Raises:
        KeysError: There is a key of this name, or the file cannot be read or written.
        ValidationError: A value is not allowed.
    """
    secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    key = Key(
        name=name,
        sha256=digest(secret),
        scopes=tuple(dict.fromkeys(scopes)),
        indexes=tuple(dict.fromkeys(indexes)) or None,
        tenant=tenant,
        rate=rate,
        created=datetime.now(UTC).replace(microsecond=0),
        expires=expires,
    )
    with _changing(path) as keys:
        if any(each.name == name for each in keys):
            raise KeysError(f"there is a key {name!r} already; choose another name, or revoke it first")
        _write(path, [*keys, key])
    return secret


def revoke_key(path: Path, name: str) -> None:
    """Remove a key.

    Raises:
        KeysError: There is none of this name, or the file cannot be read or written.
    """
    with _changing(path) as keys:
        rest = [key for key in keys if key.name != name]
        if len(rest) == len(keys):
            names = ", ".join(key.name for key in keys) or "none"
            raise KeysError(f"there is no key {name!r} in {path}; there are: {names}")
        _write(path, rest)


@contextmanager
def _changing(path: Path) -> Iterator[tuple[Key, ...]]:
    """The keys there are; nobody else changes them within."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("a") as lock:
        portalocker.lock(lock, LockFlags.EXCLUSIVE)
        yield read_keys(path) or ()


def _write(path: Path, keys: Sequence[Key]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)  # of a command that was killed; its mode may be another
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(_Keys(keys=tuple(keys)).model_dump_json(indent=2, exclude_none=True))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync(path.parent)
