"""Nobody gets past without a caller: the layer that says who sent a request, before anything reads its body.

What is open to everybody is a short list of paths here. Any other path, one that leads nowhere included, needs a key
once there are keys, so a new route is closed unless somebody opens it.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from service.caller import ANYBODY

OPEN = frozenset({"/", "/page.css", "/page.js", "/icon.svg", "/livez", "/readyz", "/metrics"})
"""Answered without a key: the page, which asks for one, and what machines watch."""

ANY_KEY = frozenset({"/openapi.json"})
"""Answered to whoever has a key, whatever its scopes."""


class Guard:
    """Gives each request its caller, as `request.state.caller`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "http":
            scope["state"]["caller"] = ANYBODY
        await self._app(scope, receive, send)
