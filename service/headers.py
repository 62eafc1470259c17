"""Headers: how many a request may send, and what every answer tells browsers."""

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import problem

MAX_URL_BYTES = 8_192
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32_768
"""Names and values of all headers together. The server's parser gives up at the same size of URL and headers."""

DEFAULTS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Of every answer that does not say otherwise, as the page does: no browser shows it, guesses its type or keeps it."""


class HeaderRules:
    """Refuses a request with too long a URL (414) or too many headers (431), and completes the headers of answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in DEFAULTS.items():
                    headers.setdefault(name, value)
            await send(message)

        if excess := _excess(scope):
            status, name, detail = excess
            refusal = problem(scope["state"]["request_id"], status, name, detail, headers={"Connection": "close"})
            await refusal(scope, receive, send_completed)
            return
        await self._app(scope, receive, send_completed)


def _excess(scope: Scope) -> tuple[int, str, str] | None:
    """What a request has too much of: status, name of the problem, detail."""
    url_bytes = len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
    if url_bytes > MAX_URL_BYTES:
        return 414, "url-too-long", f"the URL has {url_bytes} bytes; at most {MAX_URL_BYTES} are read"
    count, size = len(scope["headers"]), sum(len(name) + len(value) for name, value in scope["headers"])
    if count > MAX_HEADERS or size > MAX_HEADER_BYTES:
        allowed = f"at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes are read"
        return 431, "headers-too-large", f"{count} headers of {size} bytes; {allowed}"
    return None
