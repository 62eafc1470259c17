"""What of the page needs no browser: it is served small, under a strict policy, and takes nothing from elsewhere."""

import json
import re

import pytest

from service.demo import QUERIES
from service.routes.page import WEB
from tests.service.conftest import Serve

pytestmark = pytest.mark.anyio

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {"/" if path.name == "index.html" else f"/web/{path.name}": TYPES[path.suffix] for path in WEB.iterdir()}
MOST_BYTES = 20_000
"""Of the whole page as it is sent; a bound, so that it is noticed when it grows."""


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


async def test_the_whole_page_is_sent_in_few_bytes(serve: Serve) -> None:
    sent = 0
    async with serve() as client:
        for path in FILES:
            async with client.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as response:
                sent += len(b"".join([chunk async for chunk in response.aiter_raw()]))
                assert response.headers["Content-Encoding"] == "gzip"
    assert sent < MOST_BYTES


async def test_a_client_that_knows_no_compression_gets_the_same_file_under_another_tag(serve: Serve) -> None:
    async with serve() as client:
        plain = await client.get("/web/page.css", headers={"Accept-Encoding": "identity"})
        packed = await client.get("/web/page.css", headers={"Accept-Encoding": "gzip"})
    assert plain.content == packed.content == (WEB / "page.css").read_bytes()
    assert "Content-Encoding" not in plain.headers
    assert plain.headers["ETag"] != packed.headers["ETag"]
    assert packed.headers["Vary"] == "Accept-Encoding"


async def test_a_file_that_did_not_change_is_not_sent_again(serve: Serve) -> None:
    async with serve() as client:
        first = await client.get("/")
        again = await client.get("/", headers={"If-None-Match": f'W/"other", {first.headers["ETag"]}'})
        changed = await client.get("/", headers={"If-None-Match": '"other"'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert changed.status_code == 200


@pytest.mark.parametrize("path", ["/web/missing.js", "/web/index.htm", "/web/..%2Fapp.py", "/web/"])
async def test_nothing_else_is_served(serve: Serve, path: str) -> None:
    async with serve() as client:
        assert (await client.get(path)).status_code == 404


def test_nothing_comes_from_elsewhere_and_no_text_becomes_markup() -> None:
    for file in WEB.iterdir():
        text = file.read_text()
        assert not re.search(r"(src|href|url\(|import)\W+https?:", text), file
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text), file


def test_every_module_is_fetched_at_once_and_not_one_after_another() -> None:
    page = (WEB / "index.html").read_text()
    assert all(f'"web/{path.name}"' in page for path in WEB.glob("*.js"))


def test_the_examples_for_the_demo_are_those_of_its_greeting() -> None:
    (examples,) = re.findall(r"^  demo: (\[.*\]),$", (WEB / "page.js").read_text(), re.MULTILINE)
    assert tuple(json.loads(examples)) == QUERIES


async def test_a_probe_that_asks_for_headers_only_gets_them(serve: Serve) -> None:
    async with serve() as client:
        response = await client.head("/")
    assert (response.status_code, response.content) == (200, b"")
