"""The search page: three static files, no build step, nothing from elsewhere."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

WEB = Path(__file__).parents[1] / "web"

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False, default_response_class=FileResponse)


@router.api_route("/", methods=["GET", "HEAD"])
async def page() -> FileResponse:
    """The page itself."""
    return FileResponse(WEB / "index.html", headers=HEADERS)


@router.get("/page.css")
async def style() -> FileResponse:
    """How it looks."""
    return FileResponse(WEB / "page.css", headers=HEADERS)


@router.get("/page.js")
async def script() -> FileResponse:
    """What it does."""
    return FileResponse(WEB / "page.js", headers=HEADERS)


@router.get("/icon.svg")
async def icon() -> FileResponse:
    """What its tab shows."""
    return FileResponse(WEB / "icon.svg", headers=HEADERS)
