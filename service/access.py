"""The outermost layer: a request id for everything, one JSON log line per request, and a bound on every body.

These are plain ASGI classes: they see a request before anything parsed it and an answer after everything wrote it.
"""

import asyncio
import json
import logging
import re
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import perf_counter
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.keys import redact
from service.problems import REQUEST_ID, problem

LOGGER = logging.getLogger("dupmae.requests")
GIVEN_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
"""A caller's request id is kept if it looks like one; anything else could forge log lines."""

LINGER_S = 5.0
"""How long the rest of a refused body is read and thrown away: a client that is still sending when the connection is
closed sees a reset and never the answer."""


class Discreet(logging.Formatter):
    """A formatter that lets no secret through, wherever in a line or a trace it stands."""

    def format(self, record: logging.LogRecord) -> str:
        """The line as a formatter makes it, with secrets struck out."""
        return redact(super().format(record))


class RequestLog:
    """Gives each request an id, and logs it when it has been answered.

    Handlers add what they know to `request.state.log`, a dict.

    Args:
        app: What is inside.
        observe: Told of each line too.
    """

    def __init__(self, app: ASGIApp, observe: Callable[[Mapping[str, Any]], None]) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if GIVEN_ID.fullmatch(given) and redact(given) == given else uuid.uuid4().hex
        line: dict[str, Any] = {"request_id": request_id, "method": scope["method"], "path": scope["path"]}
        scope.setdefault("state", {}).update(request_id=request_id, log=line)
        line["status"] = 500
        began = perf_counter()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                line["status"] = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                if scope["app"].state.draining:
                    headers["Connection"] = "close"  # the next request of this client goes to another replica
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            line["took_ms"] = round(1000 * (perf_counter() - began), 3)
            if LOGGER.isEnabledFor(logging.INFO):
                LOGGER.info(redact(json.dumps(line)))
            self._observe(line)


class BodyLimit:
    """Reads a body up to a bound before anybody else does; a larger one is answered 413 at once and kept no further."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(Headers(scope=scope).get("content-length", ""), receive)
        except ClientDisconnect:
            return
        if body is None:
            detail = f"the body is larger than {self._max_bytes} bytes; send less, or raise DUPMAE_MAX_BODY_BYTES"
            refusal = problem(scope["state"]["request_id"], 413, "too-large", detail, headers={"Connection": "close"})
            await self._refuse(refusal, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)

    async def _refuse(self, refusal: Response, receive: Receive, send: Send) -> None:
        """Send the whole answer, but end it only when the body has ended too, or after `LINGER_S`."""
        await send({"type": "http.response.start", "status": refusal.status_code, "headers": refusal.raw_headers})
        await send({"type": "http.response.body", "body": refusal.body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while (await receive()).get("more_body", False):
                    pass
        await send({"type": "http.response.body", "body": b""})

    async def _read(self, declared: str, receive: Receive) -> bytes | None:
        """The body, or None when it is too large."""
        if declared.isdecimal() and int(declared) > self._max_bytes:
            return None
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                return None
            more = message.get("more_body", False)
        return bytes(body)
