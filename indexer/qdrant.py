"""Qdrant by URL: a build is the collection `<index>--<build id>`, the published one has the alias `<index>`.

The facts of a build are kept in its collection's metadata. Everything works in the client's local mode too
(`QdrantClient(":memory:")` or `path=`), which is exact, slow and for one process: for tests.
"""

from typing import Any

from pydantic import ValidationError
from qdrant_client import QdrantClient, models

from indexer.qdrant_journal import QdrantJournal
from indexer.qdrant_store import QdrantStore, address, answering
from indexer.store import (
    JOURNAL,
    Build,
    FieldType,
    IndexNotFound,
    StoreError,
    check_build,
    check_build_id,
    check_index_name,
    check_ready,
)

METADATA_KEY = "dupmae"

SCHEMA: dict[FieldType, models.PayloadSchemaType] = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "float": models.PayloadSchemaType.FLOAT,
    "bool": models.PayloadSchemaType.BOOL,
    "datetime": models.PayloadSchemaType.DATETIME,
    "text": models.PayloadSchemaType.TEXT,
    "geo": models.PayloadSchemaType.GEO,
}


def connect(url: str, api_key: str | None = None, *, timeout_s: int = 10) -> "QdrantEngine":
    """The engine of a server.

    Raises:
        StoreUnavailable: It does not answer.
    """
    engine = QdrantEngine(QdrantClient(url=url, api_key=api_key, timeout=timeout_s, check_compatibility=False))
    engine.indexes()
    return engine


class QdrantEngine:
    """Every build on one server."""

    def __init__(self, client: QdrantClient) -> None:
        """Take over `client`; `close` closes it."""
        self._client = client

    def indexes(self) -> list[str]:
        """See `Engine.indexes`. Aliases that others made on the server are left out."""
        return sorted(index for index, collection in self._aliases().items() if collection.startswith(f"{index}--"))

    def builds(self, index: str) -> list[Build]:
        """See `Engine.builds`."""
        check_index_name(index)
        with answering(self._client):
            collections = [found.name for found in self._client.get_collections().collections]
        facts = [self._read(name) for name in collections if name.startswith(f"{index}--")]
        builds = [build for build in facts if build is not None and build.index == index]
        return sorted(builds, key=lambda build: (build.created, build.id), reverse=True)

    def published(self, index: str) -> Build:
        """See `Engine.published`."""
        check_index_name(index)
        collection = self._aliases().get(index)
        build = self._read(collection) if collection else None
        if build is None:
            exist = ", ".join(self.indexes()) or "none"
            raise IndexNotFound(
                f"Index {index!r} has no published build on {address(self._client)}; indexes that have one: {exist}. "
                "Build it with `dupmae index build`."
            )
        return build

    def create(self, build: Build) -> QdrantStore:
        """See `Engine.create`."""
        check_build(build)
        collection = _collection(build)
        with answering(self._client):
            if self._client.collection_exists(collection):
                raise StoreError(
                    f"Build {build.id} of index {build.index} exists on {address(self._client)}; drop it or choose "
                    "another id."
                )
            self._client.create_collection(
                collection,
                **collection_config(build),
                metadata=_metadata(build),
            )
        self._index_fields(build)
        return QdrantStore(build, self._client, collection, write=True)

    def open(self, index: str, build_id: str | None = None, *, write: bool = False) -> QdrantStore:
        """See `Engine.open`. The server locks nothing: see to it that there is one writer."""
        build = self._facts(index, build_id) if build_id else self.published(index)
        if write:
            self._index_fields(build)
        return QdrantStore(build, self._client, _collection(build), write=write)

    def save(self, build: Build) -> None:
        """See `Engine.save`."""
        self._facts(build.index, build.id)
        with answering(self._client):
            self._client.update_collection(_collection(build), metadata=_metadata(build))

    def publish(self, build: Build) -> None:
        """See `Engine.publish`."""
        check_ready(self._facts(build.index, build.id))
        alias = models.CreateAlias(collection_name=_collection(build), alias_name=build.index)
        swap: list[models.AliasOperations] = [models.CreateAliasOperation(create_alias=alias)]
        if present := self._aliases().get(build.index):
            if not present.startswith(f"{build.index}--"):
                raise StoreError(
                    f"Alias {build.index} on {address(self._client)} leads to {present}, which is no build of this "
                    "index; choose another index name, or remove the alias."
                )
            gone = models.DeleteAlias(alias_name=build.index)
            swap.insert(0, models.DeleteAliasOperation(delete_alias=gone))
        with answering(self._client):
            self._client.update_collection_aliases(swap)

    def drop(self, build: Build) -> None:
        """See `Engine.drop`."""
        self._facts(build.index, build.id)
        if self._aliases().get(build.index) == _collection(build):
            raise StoreError(f"Build {build.id} of index {build.index} is published; publish another one first.")
        with answering(self._client):
            self._client.delete_collection(_collection(build))

    def journal(self, index: str) -> QdrantJournal:
        """See `Engine.journal`."""
        check_index_name(index)
        return QdrantJournal(self._client, f"{index}--{JOURNAL}")

    def close(self) -> None:
        """See `Engine.close`."""
        self._client.close()

    def _aliases(self) -> dict[str, str]:
        with answering(self._client):
            return {alias.alias_name: alias.collection_name for alias in self._client.get_aliases().aliases}

    def _index_fields(self, build: Build) -> None:
        """Make the payload indexes that are missing: `create` may have been killed before it came to them."""
        collection = _collection(build)
        with answering(self._client):
            present = self._client.get_collection(collection).payload_schema
            for field, type in build.indexed_fields.items():
                if field not in present:
                    self._client.create_payload_index(collection, field, field_schema=SCHEMA[type], wait=True)

    def _facts(self, index: str, build_id: str) -> Build:
        check_index_name(index)
        check_build_id(build_id)
        collection = f"{index}--{build_id}"
        with answering(self._client):
            exists = self._client.collection_exists(collection)
        build = self._read(collection) if exists else None
        if build is None or build.index != index:
            exist = ", ".join(build.id for build in self.builds(index)) or "none"
            raise IndexNotFound(f"Index {index!r} has no build {build_id!r}; builds that exist: {exist}.")
        return build

    def _read(self, collection: str) -> Build | None:
        """The facts of a collection; None when it is not ours."""
        with answering(self._client):
            metadata = self._client.get_collection(collection).config.metadata or {}
        if METADATA_KEY not in metadata:
            return None
        try:
            return Build.model_validate(metadata[METADATA_KEY])
        except ValidationError as error:
            raise StoreError(f"Collection {collection} has damaged facts of a build: {error}. Delete it.") from error


def collection_config(build: Build) -> dict[str, Any]:
    """How the server is told to lay out a build: the arguments of `create_collection`."""
    options = build.collection
    scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
    dense = models.VectorParams(
        size=build.dense_dim,
        distance=models.Distance.DOT,
        on_disk=options.on_disk,
        quantization_config=models.ScalarQuantization(scalar=scalar) if options.quantization == "int8" else None,
    )
    sparse = models.SparseVectorParams(index=models.SparseIndexParams(on_disk=options.on_disk))
    return {
        "vectors_config": {"cls": dense},
        "sparse_vectors_config": {"ot": sparse},
        "hnsw_config": models.HnswConfigDiff(
            m=options.hnsw_m, ef_construct=options.hnsw_ef_construct, on_disk=options.on_disk
        ),
        "on_disk_payload": options.on_disk_payload,
        **options.server_only,
    }


def _collection(build: Build) -> str:
    return f"{build.index}--{build.id}"


def _metadata(build: Build) -> dict[str, object]:
    return {METADATA_KEY: build.model_dump(mode="json")}
