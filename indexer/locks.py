"""Who may open the folder of an edge build: many readers, or one writer.

qdrant-edge without its write-ahead log locks nothing, and loading a shard is itself a write: it replays and removes the
journals that the last flush left. A reader that opened under a writer's feet would make the writer's next flush fail
("tracker journal is shorter than expected"), so a build that is being written cannot be read by other processes.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import portalocker
from portalocker import LockFlags

from indexer.store import BuildLocked, StoreError


class BuildLock:
    """A lock of the operating system on one build folder; it ends with `release` or with the process."""

    def __init__(self, folder: Path, *, write: bool) -> None:
        """Take the lock at once or not at all.

        Raises:
            BuildLocked: Another writer has it, or a reader where we want to write.
            StoreError: The folder does not let us.
        """
        self._write = write
        self._file = _open(folder / "writer.lock")
        try:
            portalocker.lock(self._file, (LockFlags.EXCLUSIVE if write else LockFlags.SHARED) | LockFlags.NON_BLOCKING)
        except portalocker.AlreadyLocked as error:
            holder = _holder(self._file)
            self._file.close()
            raise BuildLocked(f"Build {folder.name} in {folder} is {holder}; stop that process first.") from error
        self._file.truncate(0)
        if write:
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
            self._file.flush()

    def release(self) -> None:
        """Give the lock back; harmless when done already."""
        if self._write and not self._file.closed:
            self._file.truncate(0)
        self._file.close()


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Wait until no other reader is loading this build: two must not replay one journal."""
    with _open(folder / "load.lock") as file:
        portalocker.lock(file, LockFlags.EXCLUSIVE)
        yield


@contextmanager
def changing(builds: Path) -> Iterator[None]:
    """Wait until no other process adds or removes a build here: each would take the other's half for a leftover."""
    folder = os.open(builds, os.O_RDONLY)
    try:
        portalocker.lock(folder, LockFlags.EXCLUSIVE)
        yield
    finally:
        os.close(folder)


def _open(path: Path) -> IO[str]:
    try:
        return path.open("a+", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"Cannot lock {path}: {error.strerror}. Opening a build needs write access to it.") from error


def _holder(file: IO[str]) -> str:
    file.seek(0)
    writer = file.read()
    return f"being written by {writer}" if writer else "being read by another process"
