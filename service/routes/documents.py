"""`GET`, `PUT` and `DELETE /v1/documents/{id}`: one document of an index, at once."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Body, Path, Query
from fastapi.responses import JSONResponse
from pydantic import JsonValue

from indexer.documents import Document
from indexer.live import DocumentHeld, LiveBuild, Written, stored_document
from indexer.store import INDEX_NAME, Build
from model.encoder import EncodingError
from service.caller import Caller
from service.examples import DOCUMENT
from service.problems import BadRequest
from service.routes.reply import JsonRoute, problems
from service.routes.state import AppMetrics, AppServing, AppSettings, SearchCaller, WriteCaller
from service.schemas import DocumentIn, DocumentOut, WrittenOut
from service.searcher import DocumentNotFound
from service.spans import traced

PATH = "/v1/documents/{id:path}"

DocumentId = Annotated[
    str, Path(min_length=1, max_length=1_024, description="As its source, or you, named it.", examples=["notes/1"])
]
IndexName = Annotated[
    str | None,
    Query(
        alias="index",
        pattern=f"^{INDEX_NAME.pattern}$",
        description="The service's default when absent.",
        examples=["default"],
    ),
]

router = APIRouter(tags=["documents"], route_class=JsonRoute)


@router.get(PATH, summary="Read a document", responses=problems(401, 403, 404, 422, 503, 504))
async def get_document(
    id: DocumentId, caller: SearchCaller, serving: AppServing, settings: AppSettings, index: IndexName = None
) -> DocumentOut:
    """The document as it is stored in the build that answers."""
    index = caller.index(index or settings.index)
    async with asyncio.timeout(settings.timeout_ms / 1000), serving.desk(index) as desk:
        caller.check_build(desk.build)
        document = await desk.run(stored_document, desk.searcher.store, id)
    if document is None or not caller.sees(document.metadata):
        raise _not_found(desk.build, id)
    return DocumentOut(
        id=id,
        title=document.title,
        text=document.text,
        url=document.url,
        metadata=dict(document.metadata),
        index=desk.build.index,
        build=desk.build.id,
    )


@router.put(
    PATH,
    summary="Store a document",
    response_model=WrittenOut,
    responses={201: {"model": WrittenOut}, **problems(400, 401, 403, 404, 409, 413, 415, 422, 503, 504)},
)
async def put_document(
    id: DocumentId,
    body: Annotated[DocumentIn, Body(openapi_examples=DOCUMENT)],
    caller: WriteCaller,
    serving: AppServing,
    metrics: AppMetrics,
    settings: AppSettings,
    index: IndexName = None,
) -> JSONResponse:
    """Keeps it durably, and answers when it can be found: 201 for a new one, 200 for one that it replaces."""
    document = Document(id, body.title, body.text, body.url, _stamped(caller, body))

    @traced("write")
    def put(live: LiveBuild) -> Written:
        caller.check_build(live.build)
        return live.put(document, caller.owns)

    try:
        async with asyncio.timeout(settings.timeout_ms / 1000):
            build, written = await serving.write(caller.index(index or settings.index), put)
    except EncodingError as error:
        raise BadRequest("text", error.reason) from error
    metrics.written(build.index, "put")
    out = _written_out(caller, id, build, written)
    return JSONResponse(out.model_dump(exclude_none=True), 200 if written.existed else 201)


@router.delete(
    PATH,
    summary="Remove a document",
    response_model_exclude_none=True,
    responses=problems(401, 403, 404, 409, 413, 422, 503, 504),
)
async def delete_document(
    id: DocumentId,
    caller: WriteCaller,
    serving: AppServing,
    metrics: AppMetrics,
    settings: AppSettings,
    index: IndexName = None,
) -> WrittenOut:
    """Removes every passage of it, durably."""

    @traced("write")
    def delete(live: LiveBuild) -> Written:
        caller.check_build(live.build)
        try:
            return live.delete(id, caller.owns)
        except DocumentHeld as error:
            if caller.sees(error.metadata):
                raise
            return Written(0, False)  # as if there were none: it is not the caller's to know of

    async with asyncio.timeout(settings.timeout_ms / 1000):
        build, written = await serving.write(caller.index(index or settings.index), delete)
    if not written.existed:
        raise _not_found(build, id)
    metrics.written(build.index, "delete")
    return _written_out(caller, id, build, written)


def _stamped(caller: Caller, body: DocumentIn) -> dict[str, JsonValue]:
    """The metadata of a document that a caller puts, which says whose it is."""
    if caller.tenant is None:
        return body.metadata
    try:
        return caller.tenant.stamp(body.metadata)
    except ValueError as error:
        raise BadRequest(caller.tenant.field, str(error)) from error


def _written_out(caller: Caller, id: str, build: Build, written: Written) -> WrittenOut:
    journal = written.position if caller.tenant is None else None
    return WrittenOut(id=id, index=build.index, build=build.id, journal=journal)


def _not_found(build: Build, id: str) -> DocumentNotFound:
    return DocumentNotFound(f"index {build.index!r} holds no document {id!r}")
