"""The app factory: everything a request needs is made in the lifespan and lives on `app.state`, nothing at import."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from indexer.store import Build
from service import openapi, problems
from service.access import BodyLimit, RequestLog
from service.administration import Administration
from service.answering import Answering
from service.cursors import Cursors, kept_secret
from service.dialects import Dialects
from service.embedding import Embedder
from service.explaining import Explaining
from service.guard import Guard
from service.headers import HeaderRules
from service.keyring import KeyRing, open_keyring
from service.metrics import Metrics
from service.probe import Prober
from service.problems import REQUEST_ID
from service.routes import batch, builds, documents, explain, health, openai, page, search, similar, tei
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
    metrics.watch_disk(settings.data)

    def count(line: Mapping[str, Any]) -> None:
        if line["path"] == search.PATH or "mode" in line:
            metrics.requested(line.get("mode", "invalid"), line["status"])
            if line["status"] == HTTPStatus.OK:
                metrics.answered(line["took_ms"] / 1000)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        def opened(build: Build) -> None:
            prober.begin(build.index)
            if build.index == settings.index:
                on_ready(build)

        cursors = Cursors(_cursor_secret(settings))
        serving = Serving(open_searchers, settings, metrics, on_open=opened)
        prober = Prober(serving, settings, metrics, cursors, leaving=lambda: app.state.draining)
        app.state.serving = serving
        app.state.answering = Answering(serving, settings, metrics, cursors)
        app.state.embedder = Embedder(serving, settings, metrics)
        app.state.explaining = Explaining(serving, settings)
        app.state.administration = Administration(serving, settings)
        serving.start()
        try:
            yield
        finally:
            await prober.close()
            await app.state.administration.close()
            await serving.close()

    app = FastAPI(
        title="dupmae-search",
        version=version("dupmae-search"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.metrics, app.state.settings, app.state.draining = metrics, settings, False
    _wrap(app, settings, ring, count)
    problems.install(app)
    modules = (search, batch, explain, similar, documents, builds, openai, tei, health, page)
    routers = [module.router for module in modules] + ([] if settings.metrics_port is not None else [health.scraped])
    for router in routers:
        app.include_router(router)
    app.state.routes = [route for router in routers for route in router.routes]
    openapi.install(app)
    return app


def _wrap(app: FastAPI, settings: Settings, ring: KeyRing, observe: Callable[[Mapping[str, Any]], None]) -> None:
    """The layers around the routes, the innermost first."""
    app.add_middleware(Guard, ring=ring)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(Dialects)
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


def _cursor_secret(settings: Settings) -> bytes:
    given = settings.cursor_secret
    return given.get_secret_value().encode() if given else kept_secret(settings.data)
