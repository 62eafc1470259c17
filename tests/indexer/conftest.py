import bz2
import gzip
import lzma
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard
from qdrant_client import QdrantClient

from indexer.edge import EdgeEngine
from indexer.qdrant import QdrantEngine, connect
from indexer.store import Engine

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}
"""What makes a file of each ending that readers unpack."""

SERVER = os.environ.get("TEST_QDRANT_URL")
ENGINES = [
    "edge",
    pytest.param(
        "local",
        marks=[
            pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning"),
            pytest.mark.filterwarnings("ignore:Local mode performs exact:UserWarning"),
        ],
    ),
    pytest.param("server", marks=pytest.mark.server),
]
"""Each engine that must keep the contract. Index names in tests begin with `test-`, so that a server can be cleaned."""


@contextmanager
def opened_engine(kind: str, folder: Path) -> Iterator[Engine]:
    if kind == "edge":
        yield EdgeEngine(folder)
    elif kind == "local":
        local = QdrantEngine(QdrantClient(":memory:"))
        yield local
        local.close()
    else:
        assert SERVER is not None
        server = connect(SERVER)
        yield server
        server.close()
        _delete_test_collections(SERVER)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty engine, once for each kind."""
    with opened_engine(request.param, tmp_path) as engine:
        yield engine


def _delete_test_collections(url: str) -> None:
    client = QdrantClient(url=url, check_compatibility=False)
    for collection in client.get_collections().collections:
        if collection.name.startswith("test-"):
            client.delete_collection(collection.name)
    client.close()
