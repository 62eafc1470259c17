from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact, open_engine
from indexer.documents import Document
from model.artifact import Artifact
from model.encoder import Encoder
from service.app import create_app
from service.searcher import Searchers, open_searchers
from service.settings import Settings

DOCUMENTS = [
    Document("zip", "Compress", "How to compress a file, and how to read a compressed file.", "https://x.test/zip"),
    Document("sort", "Sorting", "Sort a list of words by the first letter.", "https://x.test/sort"),
    Document("sound", "Sound", "The speed of sound in air.", metadata={"lang": "en", "year": 1990}),
    Document("king", "The king", "The king and the queen of the island had a horse, two dogs and a cat."),
    Document("sea", "The sea", "A ship at sea by night, an island in the morning.", metadata={"lang": "de"}),
    Document("time", "Time", "Run a function every five seconds.", metadata={"lang": "en"}),
]

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def data(tiny_artifact: Artifact, tiny_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with two published indexes, `default` and `letters`, in the embedded engine."""
    settings = Settings(data=tmp_path_factory.mktemp("data"))
    keep_artifact(settings, tiny_artifact)
    engine = open_engine(settings)
    for index, documents in {"default": DOCUMENTS, "letters": [Document("a", "Letters", "the letter a")]}.items():
        options = BuildOptions(index=index, fields={"metadata.lang": "keyword"})
        engine.publish(build_index(engine, tiny_encoder, documents, options))
    engine.close()
    return settings.data


@pytest.fixture
def settings(data: Path) -> Settings:
    return Settings(data=data, threads=1, timeout_ms=60_000)


@pytest.fixture
def serve(settings: Settings) -> Serve:
    """Runs an app in this event loop, with its lifespan, and gives a client of it."""

    @asynccontextmanager
    async def run(
        open_them: Callable[[], Searchers] | None = None, **changes: object
    ) -> AsyncIterator[httpx.AsyncClient]:
        changed = settings.model_copy(update=changes)
        app = create_app(open_them or (lambda: open_searchers(changed)), changed)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://dupmae.test") as client,
        ):
            yield client

    return run
