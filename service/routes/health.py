"""For the machines that watch: alive, ready, and in numbers."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.problems import Problem
from service.routes.state import AppMetrics, AppServing, AppSettings
from service.serving import NotReady

router = APIRouter(tags=["health"])
scraped = APIRouter(tags=["health"])


@router.get("/livez", summary="Whether the process answers")
async def livez() -> dict[str, bool]:
    """200 as long as the event loop runs."""
    return {"live": True}


@router.get("/readyz", summary="Whether the default index can be searched", responses={503: {"model": Problem}})
async def readyz(request: Request, serving: AppServing, settings: AppSettings) -> JSONResponse:
    """200 after warm-up; before that, while its store does not answer, and before a stop 503 with the reason."""
    if request.app.state.draining:
        raise NotReady("the service is about to stop; ask another replica")
    try:
        async with asyncio.timeout(settings.timeout_ms / 1000):
            build = await serving.ready(settings.index)
    except TimeoutError as error:
        raise NotReady(f"index {settings.index!r} is being opened") from error
    return JSONResponse({"ready": True, "index": build.index, "build": build.id, "fingerprint": build.fingerprint})


@scraped.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(metrics: AppMetrics) -> Response:
    """The exposition format, text version 0.0.4."""
    return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)
