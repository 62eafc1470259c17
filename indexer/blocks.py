"""Points in blocks of bytes that any engine's points fit into and any program can read: JSON lines and numpy arrays."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from indexer.archive import BackupError
from indexer.store import Point
from model.vector import FusedVector

BLOCK_POINTS = 256
BLOCK_CHARACTERS = 2**22


def blocks(points: Iterable[Point]) -> Iterator[list[Point]]:
    """Consecutive points, `BLOCK_POINTS` or about `BLOCK_CHARACTERS` of text at a time: one write to a server each."""
    block: list[Point] = []
    characters = 0
    for point in points:
        block.append(point)
        characters += len(str(point.payload.get("text", "")))
        if len(block) == BLOCK_POINTS or characters >= BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


def pack(points: Sequence[Point]) -> tuple[bytes, bytes]:
    """A block as JSON lines of `{"id", "payload"}`, and as an `.npz` of its vectors.

    The arrays are `cls` float32 (n, d'), `ot_indices` uint32 and `ot_values` float32 of all points one after another,
    and `ot_counts` int64 (n,), how many of them each point has.
    """
    rows = [{"id": point.id, "payload": point.payload} for point in points]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    vectors, arrays = [point.vector for point in points], io.BytesIO()
    np.savez(
        arrays,
        cls=np.stack([vector.cls for vector in vectors]),
        ot_indices=np.concatenate([vector.ot_indices for vector in vectors]).astype(np.uint32),
        ot_values=np.concatenate([vector.ot_values for vector in vectors]),
        ot_counts=np.array([vector.ot_indices.size for vector in vectors]),
    )
    return lines.encode(), arrays.getvalue()


def unpack(lines: bytes, arrays: bytes) -> list[Point]:
    """The points of a block.

    Raises:
        BackupError: It was not written by `pack`.
    """
    try:
        rows = [json.loads(line) for line in lines.decode().split("\n")[:-1]]
        with np.load(io.BytesIO(arrays), allow_pickle=False) as found:
            cls, counts = found["cls"], found["ot_counts"]
            indices, values = found["ot_indices"].astype(np.int64), found["ot_values"]
        ends = np.cumsum(counts)[:-1]
        sides = zip(rows, cls, np.split(indices, ends), np.split(values, ends), strict=True)
        return [Point(row["id"], FusedVector(*vector), row["payload"]) for row, *vector in sides]
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise BackupError(f"a block of points is not in the format of this release ({error})") from error


class PointsDigest:
    """SHA-256 over points in their order: equal when two stores hold the same to the last bit."""

    def __init__(self) -> None:
        self.count = 0
        self._sha = hashlib.sha256()

    def add(self, point: Point) -> None:
        """The next point."""
        self.count += 1
        vector = point.vector
        payload = json.dumps(point.payload, sort_keys=True, separators=(",", ":"))
        self._sha.update(f"{point.id}\n{payload}\n{vector.ot_indices.size}\n".encode())
        for array, type in ((vector.cls, "<f4"), (vector.ot_indices, "<u4"), (vector.ot_values, "<f4")):
            self._sha.update(array.astype(type).tobytes())

    def hexdigest(self) -> str:
        """64 hex digits."""
        return self._sha.hexdigest()
