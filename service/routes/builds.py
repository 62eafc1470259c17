"""`GET /v1/indexes`, `GET /v1/builds`, and which build an index answers from: `:publish` and `:rollback`."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path
from fastapi.responses import Response

from indexer.store import BUILD_ID
from service.administration import check_administrable
from service.build_schemas import BuildsOut, PublishRequest, ReleaseOut, RollbackRequest
from service.examples import PUBLISH, ROLLBACK
from service.routes.documents import IndexName
from service.routes.reply import JsonRoute, problems, reply
from service.routes.state import AdminCaller, AppAdministration, AppSettings, SearchCaller
from service.schemas import IndexesOut

ERRORS = (400, 401, 403, 404, 409, 413, 415, 422, 503)

router = APIRouter(prefix="/v1", route_class=JsonRoute)


async def administrable(caller: AdminCaller, settings: AppSettings) -> None:
    """Refuse to publish for whoever can reach the service without a key, unless its own user alone can reach it."""
    if caller.name is None:
        check_administrable(settings)


@router.get(
    "/indexes",
    tags=["indexes"],
    response_model=IndexesOut,
    summary="List the indexes",
    responses=problems(401, 403, 503, 504),
)
async def indexes(caller: SearchCaller, administration: AppAdministration, settings: AppSettings) -> Response:
    """What can be searched, and which fields a filter may name."""
    async with asyncio.timeout(settings.timeout_ms / 1000):
        return reply(await administration.indexes(caller))


@router.get(
    "/builds",
    tags=["builds"],
    response_model=BuildsOut,
    summary="List the builds of an index",
    responses=problems(401, 403, 404, 422, 503, 504),
)
async def builds(
    caller: AdminCaller, administration: AppAdministration, settings: AppSettings, index: IndexName = None
) -> Response:
    """Newest first: state, counts, judged scores, and how far those are that are in the making."""
    async with asyncio.timeout(settings.timeout_ms / 1000):
        return reply(await administration.builds(index or settings.index))


@router.post(
    "/builds/{id}:publish",
    tags=["builds"],
    response_model=ReleaseOut,
    summary="Publish a build",
    responses=problems(*ERRORS),
    dependencies=[Depends(administrable)],
)
async def publish(
    id: Annotated[
        str, Path(pattern=f"^{BUILD_ID.pattern}$", description="As `GET /v1/builds` lists it.", examples=["b1"])
    ],
    body: Annotated[PublishRequest, Body(openapi_examples=PUBLISH)],
    administration: AppAdministration,
    settings: AppSettings,
    index: IndexName = None,
) -> Response:
    """Through the gate of `dupmae index publish`, then without a restart. Answers when the build does; nothing is
    deleted. There is no deadline: a caller may give up, and what has begun is finished."""
    return reply(await administration.publish(index or settings.index, id, body))


@router.post(
    "/builds:rollback",
    tags=["builds"],
    response_model=ReleaseOut,
    summary="Roll back to the build before",
    responses=problems(*ERRORS),
    dependencies=[Depends(administrable)],
)
async def rollback(
    body: Annotated[RollbackRequest, Body(openapi_examples=ROLLBACK)],
    administration: AppAdministration,
    settings: AppSettings,
    index: IndexName = None,
) -> Response:
    """The ready build that was live before the published one answers again; answers when it does."""
    return reply(await administration.rollback(index or settings.index))
