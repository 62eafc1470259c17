"""What the routes that answer searches have in common: what they take, and how they reply while somebody listens."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from fastapi.responses import Response
from pydantic import BaseModel

from service.problems import Problem

Answer = TypeVar("Answer", bound=BaseModel)

CALLER_GONE = 499
"""The status that the log shows for a caller who hung up, as nginx has it; nobody receives it."""


async def require_json(request: Request) -> None:
    """Refuse a body that does not say it is JSON, instead of guessing."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(415, f"content type is {media_type or 'absent'}; send application/json")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for the API's description."""
    return {status: {"model": Problem} for status in statuses}


async def unless_gone(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer | None:
    """The outcome of `work`, or None when the caller hung up first; then `work` is cancelled."""
    working = asyncio.create_task(work)
    gone = asyncio.create_task(_hung_up(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        gone.cancel()


def reply(answer: BaseModel | None) -> Response:
    """An answer as JSON; None when its caller has gone."""
    if answer is None:
        return Response(status_code=CALLER_GONE)
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
