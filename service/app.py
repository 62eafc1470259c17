"""The app factory: everything a request needs is made in the lifespan and lives on `app.state`, nothing at import."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from indexer.store import Build
from service import problems
from service.access import BodyLimit, RequestLog
from service.answering import Answering
from service.cursors import Cursors, kept_secret
from service.metrics import Metrics
from service.routes import batch, documents, health, page, search, similar
from service.searcher import Searchers
from service.serving import Serving
from service.settings import Settings

DESCRIPTION = "Search with one model that gives a dense and a lexical vector in one pass, and one exact score."


def create_app(
    open_searchers: Callable[[], Searchers],
    settings: Settings,
    *,
    on_ready: Callable[[Build], None] = lambda build: None,
) -> FastAPI:
    """The HTTP service over the indexes that `open_searchers` connects to.

    Args:
        open_searchers: Called when the app starts, and again on request as long as it fails.
        settings: Bounds, deadlines and the default index.
        on_ready: Told of the build once the default index answers.
    """

    metrics = Metrics()

    def count(line: Mapping[str, Any]) -> None:
        if line["path"] == search.PATH or "mode" in line:
            metrics.requested(line.get("mode", "invalid"), line["status"])

    def opened(build: Build) -> None:
        if build.index == settings.index:
            on_ready(build)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        serving = Serving(open_searchers, settings, metrics, on_open=opened)
        app.state.metrics, app.state.serving, app.state.settings = metrics, serving, settings
        app.state.answering = Answering(serving, settings, metrics, Cursors(_cursor_secret(settings)))
        serving.start()
        try:
            yield
        finally:
            await serving.close()

    app = FastAPI(
        title="dupmae-search",
        version=version("dupmae-search"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(RequestLog, observe=count)
    problems.install(app)
    for routes in (search.router, batch.router, similar.router, documents.router, health.router, page.router):
        app.include_router(routes)
    return app


def _cursor_secret(settings: Settings) -> bytes:
    given = settings.cursor_secret
    return given.get_secret_value().encode() if given else kept_secret(settings.data)
