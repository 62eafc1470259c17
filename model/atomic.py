"""A folder that is replaced as a whole: written beside, brought to disk, and only then put in its place by renaming.

Killed at any moment, this leaves a whole folder. A directory cannot be renamed over one that holds files, so there is a
moment between two renames when none has the name: the one before is then in `FOLDER.old`, where `before` finds it.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Give a new folder to write into; it takes the place of `folder` when the block ends without an error."""
    partial, old = _beside(folder, ".partial"), _beside(folder, ".old")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    for path in (*partial.rglob("*"), partial):
        sync(path)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    partial.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def before(folder: Path) -> Path | None:
    """The whole folder that lost its name when `replacing` was killed; None if it did not."""
    old = _beside(folder, ".old")
    return old if old.is_dir() and not folder.exists() else None


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(folder.name + ending)


def sync(path: Path) -> None:
    """Wait until the disk has a file or folder; else after a power cut a name could be there before its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
