"""Every route says who may use it."""

from collections.abc import Iterator

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from service.app import create_app
from service.guard import ANY_KEY, FILES, OPEN
from service.routes.state import May
from service.searcher import open_searchers
from service.settings import Settings


def declared(dependant: Dependant) -> Iterator[May]:
    """The scopes that a route and what it depends on ask for."""
    if isinstance(dependant.call, May):
        yield dependant.call
    for each in dependant.dependencies:
        yield from declared(each)


def walk(routes: list[BaseRoute]) -> Iterator[BaseRoute]:
    """Every route; FastAPI keeps those of an included router inside of it, or did once among the others."""
    for route in routes:
        router = getattr(route, "original_router", None)
        yield from walk(router.routes) if router else [route]


def undeclared(app: FastAPI) -> list[str]:
    """The routes that neither declare a scope nor stand in a list of open ones."""
    return [str(getattr(route, "path", route)) for route in walk(app.routes) if not is_declared(route)]


def is_declared(route: BaseRoute) -> bool:
    path = getattr(route, "path", "")
    if (path in OPEN | ANY_KEY or path.startswith(FILES)) and getattr(route, "methods", {""}) <= {"GET", "HEAD"}:
        return True
    return isinstance(route, APIRoute) and bool(list(declared(route.dependant)))


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(lambda: open_searchers(settings), settings)


def test_every_route_declares_a_scope_or_stands_in_the_list_of_open_ones(app: FastAPI) -> None:
    assert not undeclared(app)


def test_a_route_that_somebody_forgot_is_found_out(app: FastAPI) -> None:
    router = APIRouter()

    @router.get("/v1/forgotten")
    async def forgotten() -> str:
        return "everything"

    app.include_router(router)
    assert undeclared(app) == ["/v1/forgotten"]


def test_what_is_open_exists(app: FastAPI) -> None:
    assert {getattr(route, "path", None) for route in walk(app.routes)} >= OPEN | ANY_KEY
