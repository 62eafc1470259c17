"""What the routes that answer searches have in common: what they take, and how they reply while somebody listens."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from service.problems import Problem

Answer = TypeVar("Answer", bound=BaseModel)

CALLER_GONE = 499
"""The status that the log shows for a caller who hung up, as nginx has it; nobody receives it."""


class JsonRoute(APIRoute):
    """A route whose body must say that it is JSON; one that does not is refused, instead of guessed at."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI's, after a look at the content type."""
        handle = super().get_route_handler()
        if not self.body_field:
            return handle

        async def checked(request: Request) -> Response:
            media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if media_type != "application/json":
                raise HTTPException(415, f"content type is {media_type or 'absent'}; send application/json")
            return await handle(request)

        return checked


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for the API's description."""
    return {status: {"model": Problem} for status in statuses}


async def unless_gone(request: Request, work: Awaitable[Answer]) -> Answer | None:
    """The outcome of `work`, or None when the caller hung up first; then `work` is cancelled."""
    waiting = asyncio.current_task()
    assert waiting is not None
    watching = asyncio.create_task(_cancel_when_gone(request, waiting))
    try:
        return await work
    except asyncio.CancelledError:
        if watching.done() and waiting.uncancel() == 0:
            return None
        raise
    finally:
        watching.cancel()


def reply(answer: BaseModel | None) -> Response:
    """An answer as JSON; None when its caller has gone."""
    if answer is None:
        return Response(status_code=CALLER_GONE)
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


async def _cancel_when_gone(request: Request, waiting: "asyncio.Task[Any]") -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    waiting.cancel()
