"""Nobody gets past without a caller: the layer that says who sent a request, before anything parses its body.

What is open to everybody is a short list of paths here. Any other path, one that leads nowhere included, needs a key
once there are keys, so a new route is closed unless somebody opens it.
"""

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.caller import ANYBODY, NOBODY, Caller
from service.keyring import KeyRing
from service.keys import Key
from service.problems import problem

OPEN = frozenset({"/", "/livez", "/readyz", "/health", "/metrics"})
"""Answered to GET and HEAD without a key: the page, which asks for one, and what machines watch."""

FILES = "/web/"
"""What the page is made of, answered likewise."""

ANY_KEY = frozenset({"/openapi.json"})
"""Answered to whoever has a key, whatever its scopes."""

CHALLENGE = 'Bearer realm="dupmae"'
HOW = "send one as `Authorization: Bearer KEY` or `X-API-Key: KEY`"


class Guard:
    """Gives each request its caller, as `request.state.caller`, or refuses it: 401, or 429 above the key's rate.

    Without keys a credential is ignored, since clients made for services that need one send something.
    """

    def __init__(self, app: ASGIApp, ring: KeyRing) -> None:
        self._app = app
        self._ring = ring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        found = self._identify(scope)
        if isinstance(found, Response):
            await found(scope, receive, send)
            return
        scope["state"]["caller"] = found
        await self._app(scope, receive, send)

    def _identify(self, scope: Scope) -> Caller | Response:
        if not self._ring.in_force:
            return ANYBODY
        if scope["method"] in {"GET", "HEAD"} and (scope["path"] in OPEN or scope["path"].startswith(FILES)):
            return NOBODY
        secrets = _secrets(Headers(scope=scope))
        if not secrets:
            return _unauthenticated(scope, f"this service asks for a key; {HOW}", CHALLENGE)
        key = self._ring.find(secrets.pop()) if len(secrets) == 1 else None
        if key is None:
            detail = f"the key is unknown, revoked or expired, or two were sent; {HOW}"
            return _unauthenticated(scope, detail, f'{CHALLENGE}, error="invalid_token"')
        scope["state"]["log"]["key"] = key.name
        wait_s = self._ring.wait_s(key)
        return _too_many(scope, key, wait_s) if wait_s else key.caller


def _secrets(headers: Headers) -> set[str]:
    """What may be a key; a header of another scheme belongs to a proxy before us."""
    bearers = (value.partition(" ") for value in headers.getlist("authorization"))
    sent = [secret for scheme, _, secret in bearers if scheme.lower() == "bearer"] + headers.getlist("x-api-key")
    return {secret.strip() for secret in sent} - {""}


def _unauthenticated(scope: Scope, detail: str, challenge: str) -> Response:
    headers = {"WWW-Authenticate": challenge}
    return problem(scope["state"]["request_id"], 401, "unauthenticated", detail, headers=headers)


def _too_many(scope: Scope, key: Key, wait_s: int) -> Response:
    assert key.rate is not None
    allowed = f"{key.rate.per_second:g} requests a second and {key.rate.burst} at once"
    detail = f"key {key.name!r} may send {allowed}; wait {wait_s} s"
    headers = {"Retry-After": str(wait_s)}
    return problem(scope["state"]["request_id"], 429, "rate-limited", detail, headers=headers)
