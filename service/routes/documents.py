"""`GET`, `PUT` and `DELETE /v1/documents/{id}`: one document of an index, at once."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import JSONResponse

from indexer.documents import Document
from indexer.live import stored_document
from indexer.store import INDEX_NAME, Build
from model.encoder import EncodingError
from service.problems import BadRequest
from service.routes.reply import problems, require_json
from service.routes.state import AppMetrics, AppServing, AppSettings
from service.schemas import DocumentIn, DocumentOut, WrittenOut
from service.searcher import DocumentNotFound

PATH = "/v1/documents/{id:path}"

DocumentId = Annotated[str, Path(min_length=1, max_length=1_024, description="As its source, or you, named it.")]
IndexName = Annotated[
    str | None,
    Query(alias="index", pattern=f"^{INDEX_NAME.pattern}$", description="The service's default when absent."),
]

router = APIRouter(tags=["documents"])


@router.get(PATH, summary="Read a document", responses=problems(404, 422, 503, 504))
async def get_document(
    id: DocumentId, serving: AppServing, settings: AppSettings, index: IndexName = None
) -> DocumentOut:
    """The document as it is stored in the build that answers."""
    async with asyncio.timeout(settings.timeout_ms / 1000), serving.desk(index or settings.index) as desk:
        document = await desk.run(stored_document, desk.searcher.store, id)
    if document is None:
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
    dependencies=[Depends(require_json)],
    response_model=WrittenOut,
    responses={201: {"model": WrittenOut}, **problems(400, 403, 404, 413, 415, 422, 503, 504)},
)
async def put_document(
    id: DocumentId,
    body: DocumentIn,
    serving: AppServing,
    metrics: AppMetrics,
    settings: AppSettings,
    index: IndexName = None,
) -> JSONResponse:
    """Keeps it durably, and answers when it can be found: 201 for a new one, 200 for one that it replaces."""
    document = Document(id, body.title, body.text, body.url, body.metadata)
    try:
        async with asyncio.timeout(settings.timeout_ms / 1000):
            build, written = await serving.write(index or settings.index, lambda live: live.put(document))
    except EncodingError as error:
        raise BadRequest("text", error.reason) from error
    metrics.written(build.index, "put")
    out = WrittenOut(id=id, index=build.index, build=build.id, journal=written.position)
    return JSONResponse(out.model_dump(), 200 if written.existed else 201)


@router.delete(PATH, summary="Remove a document", responses=problems(403, 404, 422, 503, 504))
async def delete_document(
    id: DocumentId, serving: AppServing, metrics: AppMetrics, settings: AppSettings, index: IndexName = None
) -> WrittenOut:
    """Removes every passage of it, durably."""
    async with asyncio.timeout(settings.timeout_ms / 1000):
        build, written = await serving.write(index or settings.index, lambda live: live.delete(id))
    if not written.existed:
        raise _not_found(build, id)
    metrics.written(build.index, "delete")
    return WrittenOut(id=id, index=build.index, build=build.id, journal=written.position)


def _not_found(build: Build, id: str) -> DocumentNotFound:
    return DocumentNotFound(f"index {build.index!r} holds no document {id!r}")
