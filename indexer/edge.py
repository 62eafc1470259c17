"""The embedded engine: builds in folders, searched in this process by qdrant-edge.

    <root>/indexes/<name>/current                          the id of the published build
    <root>/indexes/<name>/builds/<id>/build.json           the facts of a build, written last when it is created
                                     /shard/               vectors and payloads
                                     /writer.lock          see `indexer.locks`
    <root>/indexes/<name>/journal.jsonl                    live writes, see `indexer.edge_journal`

There is no write-ahead log: it would allow one opener only, and a build is written from a source that can be read
again. So points are durable once `flush` has returned. The engine holds the GIL while it searches and optimizes.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

import qdrant_edge as edge
from pydantic import ValidationError

from indexer.edge_journal import EdgeJournal
from indexer.edge_store import INDEXING_THRESHOLD_KB, PARTS, EdgeStore, naming
from indexer.locks import BuildLock, changing, loading
from indexer.store import (
    JOURNAL,
    Build,
    BuildLocked,
    FieldType,
    IndexNotFound,
    StoreError,
    check_build,
    check_build_id,
    check_index_name,
    check_ready,
)
from model.atomic import sync

FULL_SCAN_KB = 10_000
"""The server's own default: below so many KB of vectors a filtered search scans them all."""

SCHEMA: dict[FieldType, edge.PayloadSchemaType] = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Bool,
    "datetime": edge.PayloadSchemaType.Datetime,
    "text": edge.PayloadSchemaType.Text,
    "geo": edge.PayloadSchemaType.Geo,
}


class EdgeEngine:
    """Every build under one folder."""

    def __init__(self, root: Path) -> None:
        self._indexes = root / "indexes"

    def indexes(self) -> list[str]:
        """See `Engine.indexes`."""
        return sorted(path.parent.name for path in self._indexes.glob("*/current"))

    def builds(self, index: str) -> list[Build]:
        """See `Engine.builds`."""
        check_index_name(index)
        found = [_read(path) for path in (self._indexes / index / "builds").glob("*/build.json")]
        return sorted(found, key=lambda build: (build.created, build.id), reverse=True)

    def published(self, index: str) -> Build:
        """See `Engine.published`."""
        check_index_name(index)
        try:
            build_id = self._current(index).read_text("utf-8", errors="replace")
        except FileNotFoundError as error:
            exist = ", ".join(self.indexes()) or "none"
            raise IndexNotFound(
                f"Index {index!r} has no published build; indexes that have one: {exist}. Build it with "
                "`dupmae index build`."
            ) from error
        return self._facts(index, build_id)

    def create(self, build: Build) -> EdgeStore:
        """See `Engine.create`."""
        check_build(build)
        if refused := build.collection.server_only:
            named = ", ".join(f"{name}={value}" for name, value in refused.items())
            raise StoreError(
                f"The embedded engine is one machine and has no {named}; leave that out, or set DUPMAE_QDRANT_URL to a "
                "server."
            )
        folder = self._folder(build)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with changing(folder.parent):
            _sweep(folder.parent)
            if folder.exists():
                BuildLock(folder, write=True).release()
                raise StoreError(f"Build {build.id} of index {build.index} exists; drop it or choose another id.")
            folder.mkdir()
            lock = BuildLock(folder, write=True)
        try:
            with naming(build):
                shard = _new_shard(folder, build)
        except StoreError:
            lock.release()
            raise
        self._write_facts(build)
        return EdgeStore(build, shard, lock, folder, write=True)

    def open(self, index: str, build_id: str | None = None, *, write: bool = False) -> EdgeStore:
        """See `Engine.open`. A build that a process writes to cannot be opened by another, not even for reading."""
        build = self._facts(index, build_id) if build_id else self.published(index)
        folder = self._folder(build)
        lock = BuildLock(folder, write=write)
        if write:  # what a killed `optimize` left half-made; the engine never removes it
            shutil.rmtree(folder / "shard" / "temp_segments", ignore_errors=True)
        try:
            with loading(folder), naming(build):
                shard = edge.EdgeShard.load(str(folder / "shard"))
                if write:
                    _index_fields(shard, build)
        except StoreError:
            lock.release()
            raise
        return EdgeStore(build, shard, lock, folder, write=write)

    def save(self, build: Build) -> None:
        """See `Engine.save`."""
        check_build(build)
        self._facts(build.index, build.id)
        self._write_facts(build)

    def publish(self, build: Build) -> None:
        """See `Engine.publish`."""
        check_ready(self._facts(build.index, build.id))
        _write_atomically(self._current(build.index), build.id)

    def drop(self, build: Build) -> None:
        """See `Engine.drop`. Refuses a build that is open anywhere."""
        self._facts(build.index, build.id)
        if build.index in self.indexes() and self.published(build.index).id == build.id:
            raise StoreError(f"Build {build.id} of index {build.index} is published; publish another one first.")
        folder = self._folder(build)
        lock = BuildLock(folder, write=True)
        with changing(folder.parent):
            (folder / "build.json").unlink()
            shutil.rmtree(folder)
        lock.release()

    def journal(self, index: str) -> EdgeJournal:
        """See `Engine.journal`."""
        check_index_name(index)
        return EdgeJournal(self._indexes / index / f"{JOURNAL}.jsonl")

    def close(self) -> None:
        """See `Engine.close`. Nothing is held: each store has its own shard and lock."""

    def _current(self, index: str) -> Path:
        return self._indexes / index / "current"

    def _folder(self, build: Build) -> Path:
        return self._indexes / build.index / "builds" / build.id

    def _facts(self, index: str, build_id: str) -> Build:
        check_index_name(index)
        check_build_id(build_id)
        path = self._indexes / index / "builds" / build_id / "build.json"
        if not path.exists():
            exist = ", ".join(build.id for build in self.builds(index)) or "none"
            raise IndexNotFound(f"Index {index!r} has no build {build_id!r}; builds that exist: {exist}.")
        return _read(path)

    def _write_facts(self, build: Build) -> None:
        _write_atomically(self._folder(build) / "build.json", build.model_dump_json(indent=2))


def _sweep(builds: Path) -> None:
    """Remove what a killed `create` or `drop` left: a folder without facts, which nobody has locked."""
    for folder in builds.iterdir():
        if folder.is_dir() and not (folder / "build.json").exists():
            with suppress(BuildLocked):
                lock = BuildLock(folder, write=True)
                shutil.rmtree(folder)
                lock.release()


def _new_shard(folder: Path, build: Build) -> edge.EdgeShard:
    shard = edge.EdgeShard.create(str(folder / "shard"), _config(build))
    _index_fields(shard, build)
    return shard


def _index_fields(shard: edge.EdgeShard, build: Build) -> None:
    """Make the payload indexes that are missing, as in builds of an older release."""
    if missing := build.indexed_fields.keys() - shard.info().payload_schema.keys():
        for field in sorted(missing):
            shard.update(edge.UpdateOperation.create_field_index(field, SCHEMA[build.indexed_fields[field]]))
        shard.flush()


def _config(build: Build) -> edge.EdgeConfig:
    options, memory = build.collection, edge.Memory
    where = memory.Cold if options.on_disk else None
    quantized = edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99, memory=memory.Pinned)
    dense = edge.EdgeVectorParams(
        size=build.dense_dim,
        distance=edge.Distance.Dot,
        memory=where,
        quantization_config=quantized if options.quantization == "int8" else None,
    )
    return edge.EdgeConfig(
        vectors={"cls": dense},
        sparse_vectors={"ot": edge.EdgeSparseVectorParams(memory=where)},
        hnsw_config=edge.HnswIndexConfig(
            m=options.hnsw_m,
            ef_construct=options.hnsw_ef_construct,
            full_scan_threshold=FULL_SCAN_KB,
            memory=where,
        ),
        optimizers=edge.EdgeOptimizersConfig(
            indexing_threshold=INDEXING_THRESHOLD_KB,
            default_segment_number=PARTS + 1,  # one takes what is written
        ),
        payload_memory=memory.Cold if options.on_disk_payload else memory.Cached,
        wal_enabled=False,
    )


def _read(path: Path) -> Build:
    try:
        return Build.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise StoreError(
            f"{path} is damaged ({field}: {first['msg']}). Restore it, or delete its folder and build again."
        ) from error


def _write_atomically(path: Path, text: str) -> None:
    """Replace a file so that after a crash it holds the old text or the new one."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync(path.parent)
