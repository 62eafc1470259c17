"""The keys of a running service: what the key file holds, followed while it changes, and the tokens each key has left.

Once there are keys there are always keys: a file that is damaged, emptied or gone later leaves the last good ones in
force, or none that fits, but never opens the service.
"""

import hmac
import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from service.keys import Key, KeysError, Rate, digest, read_keys
from service.settings import Settings, SettingsError

LOGGER = logging.getLogger("dupmae.keys")

LOOK_EVERY_S = 1.0
"""How long a change of the file may go unseen; a look is one `stat`."""

ID = 16
"""Hexadecimal digits of a digest that a key is looked up by. What a caller sends determines no digit it could steer."""

Signature = tuple[int, int, int] | None


class Bucket:
    """The tokens of one key: a request takes one, and they come back at a steady rate up to the burst."""

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._tokens = float(rate.burst)
        self._at = now

    def take(self, now: float) -> float:
        """Take a token, and return 0; or take none, and return the seconds until there is one.

        >>> bucket = Bucket(Rate(per_second=2, burst=1), now=0)
        >>> bucket.take(now=0), bucket.take(now=0), bucket.take(now=0.5)
        (0.0, 0.5, 0.0)
        """
        self._tokens = min(self.rate.burst, self._tokens + (now - self._at) * self.rate.per_second)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self.rate.per_second
        self._tokens -= 1
        return 0.0


class KeyRing:
    """Which key a secret belongs to. Used on the event loop.

    Args:
        path: The key file; need not exist.
        now: Seconds of a clock that only goes forward.

    Raises:
        KeysError: The file is there and cannot be used.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._now = now
        self._looked = now()
        self._signature = _signature(path)
        keys = read_keys(path)
        self._in_force = keys is not None
        self._keys = _by_id(keys or ())
        self._buckets: dict[str, Bucket] = {}

    @property
    def in_force(self) -> bool:
        """Whether a key is asked for: since there is, or was, a key file."""
        self._look()
        return self._in_force

    def find(self, secret: str) -> Key | None:
        """The key of a secret, if there is one that has not expired."""
        self._look()
        sent = digest(secret)
        key = self._keys.get(sent[:ID])
        if key is None or not hmac.compare_digest(key.sha256, sent) or key.expired(datetime.now(UTC)):
            return None
        return key

    def wait_s(self, key: Key) -> int:
        """Seconds until this key may send a request again; 0 when it may now, and then it has."""
        if key.rate is None:
            return 0
        bucket = self._buckets.get(key.sha256)
        if bucket is None or bucket.rate != key.rate:
            bucket = self._buckets[key.sha256] = Bucket(key.rate, self._now())
        return math.ceil(bucket.take(self._now()))

    def _look(self) -> None:
        """Read the file again if it is another one than before."""
        now = self._now()
        if now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        signature = _signature(self._path)
        if signature == self._signature:
            return
        self._signature = signature
        try:
            self._replace(read_keys(self._path))
        except KeysError as error:
            LOGGER.error("the keys stay as they were: %s", error)

    def _replace(self, keys: tuple[Key, ...] | None) -> None:
        if keys is None:
            LOGGER.error("the key file %s is gone; the keys stay as they were", self._path)
            return
        self._in_force = True
        self._keys = _by_id(keys)
        digests = {key.sha256 for key in keys}
        self._buckets = {each: bucket for each, bucket in self._buckets.items() if each in digests}
        LOGGER.info("%d keys are in force", len(keys))


def open_keyring(settings: Settings) -> KeyRing:
    """The keys of a service, once it is sure that it needs none or has some.

    Raises:
        KeysError: The key file is damaged.
        SettingsError: Others could reach the service, and there are no keys.
    """
    ring = KeyRing(settings.key_file)
    if not (ring.in_force or settings.anonymous or is_loopback(settings.host)):
        raise SettingsError(
            f"{settings.host} can be reached from elsewhere, and there are no keys in {settings.key_file}: make one "
            "with `dupmae key create NAME`, listen on 127.0.0.1, or set DUPMAE_ANONYMOUS=true to answer everybody"
        )
    return ring


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _by_id(keys: tuple[Key, ...]) -> dict[str, Key]:
    return {key.sha256[:ID]: key for key in keys}


def _signature(path: Path) -> Signature:
    """What changes when the file is replaced, or written in place."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
