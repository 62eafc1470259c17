"""The app factory: everything a request needs is made in the lifespan and lives on `app.state`, nothing at import."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from indexer.store import Build
from service import problems
from service.access import BodyLimit, RequestLog
from service.answering import Answering
from service.guard import Guard
from service.headers import HeaderRules
from service.keyring import KeyRing, open_keyring
from service.metrics import Metrics
from service.problems import REQUEST_ID
from service.routes import documents, health, page, search
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

    Raises:
        KeysError: The key file is damaged.
        SettingsError: Others could reach the service, and there are no keys.
    """

    metrics, ring = Metrics(), open_keyring(settings)

    def count(line: Mapping[str, Any]) -> None:
        if line["path"] == search.PATH:
            metrics.requested(line.get("mode", "invalid"), line["status"])

    def opened(build: Build) -> None:
        if build.index == settings.index:
            on_ready(build)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        serving = Serving(open_searchers, settings, metrics, on_open=opened)
        app.state.serving, app.state.answering = serving, Answering(serving, settings, metrics)
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
    app.state.metrics, app.state.settings = metrics, settings
    _wrap(app, settings, ring, count)
    problems.install(app)
    for routes in (search.router, documents.router, health.router, page.router):
        app.include_router(routes)
    if settings.metrics_port is None:
        app.include_router(health.scraped)
    return app


def _wrap(app: FastAPI, settings: Settings, ring: KeyRing, observe: Callable[[Mapping[str, Any]], None]) -> None:
    """The layers around the routes, the innermost first."""
    app.add_middleware(Guard, ring=ring)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", REQUEST_ID],
            expose_headers=[REQUEST_ID, "Retry-After", "WWW-Authenticate"],
        )
    app.add_middleware(HeaderRules)
    app.add_middleware(RequestLog, observe=observe)
