"""The search page: a few static files, no build step, nothing from elsewhere.

Each file is read and compressed once, when it is first asked for. A browser keeps it and asks whether it changed, which
costs an empty 304: a new version of the service is never mixed with scripts of an old one.
"""

import gzip
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Header, HTTPException
from fastapi.responses import Response

WEB = Path(__file__).parents[1] / "web"

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}

MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""Not asked of the system, whose tables differ: a script of the wrong type does not run under `nosniff`."""

router = APIRouter(include_in_schema=False)

Conditional = Annotated[str, Header(alias="If-None-Match")]
Accepted = Annotated[str, Header(alias="Accept-Encoding")]


class _File(NamedTuple):
    media_type: str
    digest: str
    plain: bytes
    compressed: bytes


@router.api_route("/", methods=["GET", "HEAD"])
async def page(known: Conditional = "", accepted: Accepted = "") -> Response:
    """The page itself."""
    return _respond("index.html", known, accepted)


@router.get("/web/{name}")
async def part(name: str, known: Conditional = "", accepted: Accepted = "") -> Response:
    """What it looks like and what it does."""
    return _respond(name, known, accepted)


def _respond(name: str, known: str, accepted: str) -> Response:
    file = _files().get(name)
    if file is None:
        raise HTTPException(404, f"the page has no file {name!r}")
    packed = "gzip" in accepted
    tag = f'"{file.digest}{"-gzip" if packed else ""}"'
    headers = {**HEADERS, "ETag": tag}
    if tag in known:
        return Response(status_code=304, headers=headers)
    if packed:
        headers["Content-Encoding"] = "gzip"
    return Response(file.compressed if packed else file.plain, headers=headers, media_type=file.media_type)


@cache
def _files() -> dict[str, _File]:
    return {path.name: _read(path) for path in WEB.iterdir()}


def _read(path: Path) -> _File:
    content = path.read_bytes()
    return _File(MEDIA_TYPES[path.suffix], sha256(content).hexdigest()[:32], content, gzip.compress(content, mtime=0))
