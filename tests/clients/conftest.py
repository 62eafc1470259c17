"""A service at a real address for clients that were written for other servers, in a thread of the tests' process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
import uvicorn

from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact, open_engine
from indexer.documents import Document
from indexer.store import FieldType
from model.artifact import Artifact
from model.encoder import Encoder
from service.app import create_app
from service.searcher import open_searchers
from service.server import listen
from service.settings import Settings
from tests.service.conftest import DOCUMENTS

HELD = [*DOCUMENTS, Document("zipfile.ZipFile", text="Open a file.", metadata={"kind": "class"})]

Serve = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def clients_data(tiny_artifact: Artifact, tiny_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with two published indexes that hold what the documentation asks for."""
    settings = Settings(data=tmp_path_factory.mktemp("data"))
    keep_artifact(settings, tiny_artifact)
    fields: dict[str, FieldType] = {"metadata.lang": "keyword", "metadata.kind": "keyword"}
    with closing(open_engine(settings)) as engine:
        for index in ("default", "demo"):
            engine.publish(build_index(engine, tiny_encoder, HELD, BuildOptions(index=index, fields=fields)))
    return settings.data


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The address of a service with these settings, ready."""
    ready = threading.Event()
    with listen("127.0.0.1", 0) as listener:
        app = create_app(lambda: open_searchers(settings), settings, on_ready=lambda build: ready.set())
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert ready.wait(60)
            yield "http://{}:{}".format(*listener.getsockname())
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def serve(clients_data: Path) -> Serve:
    """Serves that folder with changed settings."""

    def run(**changes: object) -> AbstractContextManager[str]:
        return served(Settings(data=clients_data, threads=1, timeout_ms=60_000).model_copy(update=changes))

    return run


@pytest.fixture(scope="session")
def address(serve: Serve) -> Iterator[str]:
    """The address of a service that all clients share."""
    with serve() as address:
        yield address


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
