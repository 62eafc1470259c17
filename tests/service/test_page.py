"""What of the page needs no browser: it is served, under a strict policy, and takes nothing from elsewhere."""

import re

import pytest

from service.routes.page import WEB
from tests.service.conftest import Serve

pytestmark = pytest.mark.anyio

FILES = {"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript", "/icon.svg": "image/svg+xml"}


@pytest.mark.parametrize(("path", "media_type"), FILES.items())
async def test_each_file_is_served_under_a_policy_that_allows_only_our_own(
    serve: Serve, path: str, media_type: str
) -> None:
    async with serve() as client:
        response = await client.get(path)
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith(media_type)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_nothing_comes_from_elsewhere_and_no_text_becomes_markup() -> None:
    for file in WEB.iterdir():
        text = file.read_text()
        assert not re.search(r"(src|href|url\(|import)\W+https?:", text), file
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text), file


async def test_the_description_of_the_api_has_the_search_with_an_example(serve: Serve) -> None:
    async with serve() as client:
        described = (await client.get("/openapi.json")).json()
    assert set(described["paths"]) >= {"/v1/search", "/v1/documents/{id}", "/livez", "/readyz", "/metrics"}
    assert described["components"]["schemas"]["SearchRequest"]["examples"][0]["query"]


async def test_a_probe_that_asks_for_headers_only_gets_them(serve: Serve) -> None:
    async with serve() as client:
        response = await client.head("/")
    assert (response.status_code, response.content) == (200, b"")
