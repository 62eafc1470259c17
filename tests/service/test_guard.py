"""Over HTTP: who gets in, who may do what, how often; and no secret in any log, wherever somebody puts one."""

import json
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.access import Discreet
from service.caller import Scope
from service.guard import OPEN
from service.headers import MAX_HEADER_BYTES, MAX_HEADERS, MAX_URL_BYTES
from service.keys import Rate, create_key
from service.settings import Settings, SettingsError
from tests.service.conftest import Serve
from tests.service.test_problems import check

pytestmark = pytest.mark.anyio

ASK: dict[str, Any] = {"json": {"query": "the king"}}
Locked = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def locked(serve: Serve, path: Path) -> Locked:
    """A service with the keys of `path`."""

    @asynccontextmanager
    async def run(**changes: object) -> AsyncIterator[httpx.AsyncClient]:
        async with serve(keys=path, **changes) as client:
            yield client

    return run


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def test_a_key_opens_the_service_in_either_header(locked: Locked, path: Path) -> None:
    secret = create_key(path, "site", ["search"])
    async with locked() as client:
        for headers in (bearer(secret), {"Authorization": f"bearer  {secret}"}, {"X-API-Key": secret}):
            assert (await client.post("/v1/search", **ASK, headers=headers)).status_code == 200
        both = bearer(secret) | {"X-API-Key": secret}
        assert (await client.post("/v1/search", **ASK, headers=both)).status_code == 200
        proxied = {"Authorization": "Basic dTpw", "X-API-Key": secret}
        assert (await client.post("/v1/search", **ASK, headers=proxied)).status_code == 200


async def test_without_a_good_key_the_answer_is_401_and_a_challenge(locked: Locked, path: Path) -> None:
    secret = create_key(path, "site", ["search"])
    async with locked() as client:
        none = await client.post("/v1/search", **ASK)
        assert "`X-API-Key: KEY`" in check(none, 401, "unauthenticated")["detail"]
        assert none.headers["WWW-Authenticate"] == 'Bearer realm="dupmae"'
        wrong = [
            bearer("x"),
            bearer(secret[:-1]),
            bearer(secret) | {"X-API-Key": "x"},
            {"X-API-Key": "\u00e9".encode()},
        ]
        for headers in wrong:
            refused = await client.post("/v1/search", **ASK, headers=headers)  # type: ignore[arg-type]
            check(refused, 401, "unauthenticated")
            assert refused.headers["WWW-Authenticate"] == 'Bearer realm="dupmae", error="invalid_token"'
        unparsed = await client.post("/v1/search", content=b"{", headers={"Content-Type": "application/json"})
        check(unparsed, 401, "unauthenticated")


async def test_with_keys_only_the_page_and_what_machines_watch_is_open(locked: Locked, path: Path) -> None:
    create_key(path, "site", ["search"])
    async with locked() as client:
        for open_path in [*OPEN, "/web/page.js"]:
            assert (await client.get(open_path)).status_code == 200, open_path
        closed = ["/openapi.json", "/v1/documents/king", "/nowhere", "/livez/", "/web", "/%2e/livez"]
        for path_ in closed:
            assert (await client.get(path_)).status_code == 401, path_


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        (["search"], {"search"}),
        (["write"], {"write"}),
        (["search", "write"], {"search", "write"}),
        (["admin"], {"search", "write"}),
    ],
)
async def test_a_scope_allows_what_it_says_and_403_names_the_one_that_is_missing(
    locked: Locked, path: Path, scopes: list[Scope], allowed: set[str]
) -> None:
    headers = bearer(create_key(path, "site", scopes))
    async with locked() as client:
        client.headers.update(headers)
        answers = {
            "search": [await client.post("/v1/search", **ASK), await client.get("/v1/documents/king")],
            "write": [await client.put("/v1/documents/x", json={"text": "a"}), await client.delete("/v1/documents/x")],
        }
    for scope, responses in answers.items():
        for response in responses:
            if scope not in allowed:
                assert f"lacks the scope `{scope}`" in check(response, 403, "forbidden")["detail"]
            elif scope == "write":
                check(response, 403, "not-writable")  # it got past the key
            else:
                assert response.status_code == 200


async def test_a_key_for_some_indexes_learns_nothing_of_others(locked: Locked, path: Path) -> None:
    headers = bearer(create_key(path, "site", ["search"], indexes=["letters", "gone"]))
    async with locked() as client:
        client.headers.update(headers)
        assert (await client.post("/v1/search", json={"query": "letter", "index": "letters"})).status_code == 200
        details = []
        for index in ("default", "missing"):
            refused = await client.post("/v1/search", json={"query": "letter", "index": index})
            details.append(check(refused, 403, "forbidden")["detail"].replace(index, "INDEX"))
        assert details[0] == details[1]
        check(await client.get("/v1/documents/king"), 403, "forbidden")
        gone = check(await client.post("/v1/search", json={"query": "x", "index": "gone"}), 404, "index-not-found")
        assert "default" not in gone["detail"]


async def test_readiness_tells_everybody_no_more_than_that(
    locked: Locked, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    create_key(path, "site", ["search"])
    async with locked(data=tmp_path) as client:
        unready = check(await client.get("/readyz"), 503, "not-ready")
    assert "log says why" in unready["detail"]
    assert unready["request_id"] in caplog.text


async def test_above_its_rate_a_key_is_answered_429_and_others_are_not(locked: Locked, path: Path) -> None:
    slow = bearer(create_key(path, "slow", ["search"], rate=Rate(per_second=0.01, burst=2)))
    fast = bearer(create_key(path, "fast", ["search"]))
    async with locked() as client:
        assert [(await client.get("/v1/documents/king", headers=slow)).status_code for _ in range(2)] == [200, 200]
        refused = await client.get("/v1/documents/king", headers=slow)
        assert "0.01 requests a second and 2 at once" in check(refused, 429, "rate-limited")["detail"]
        assert 90 <= int(refused.headers["Retry-After"]) <= 100
        assert (await client.get("/v1/documents/king", headers=fast)).status_code == 200
        assert (await client.get("/livez", headers=slow)).status_code == 200


async def test_without_keys_whatever_a_client_sends_as_one_is_ignored(serve: Serve) -> None:
    async with serve() as client:
        assert (await client.post("/v1/search", **ASK, headers=bearer("sk-anything"))).status_code == 200


async def test_a_service_that_others_could_reach_does_not_start_without_keys(serve: Serve) -> None:
    with pytest.raises(SettingsError, match="0\\.0\\.0\\.0 can be reached from elsewhere"):
        async with serve(host="0.0.0.0"):
            pass


@pytest.fixture
def everything_logged() -> Iterator[list[str]]:
    """Every line of every logger at every level, as the service writes it."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.setFormatter(Discreet("%(message)s"))
    handler.emit = lambda record: lines.append(handler.format(record))  # type: ignore[method-assign]
    root, requests = logging.getLogger(), logging.getLogger("dupmae.requests")
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    requests.setLevel(logging.DEBUG)
    yield lines
    root.removeHandler(handler)
    root.setLevel(level)


async def test_no_secret_is_logged_wherever_it_is_put(locked: Locked, path: Path, everything_logged: list[str]) -> None:
    good = create_key(path, "site", ["admin"], rate=Rate(per_second=1, burst=6))
    create_key(path, "other", ["write"])
    unknown = "dupmae_" + "Q" * 43
    async with locked(log_queries=True) as client:
        for secret in (good, unknown):
            places: list[dict[str, Any]] = [
                {"headers": bearer(secret)},
                {"headers": {"X-API-Key": secret}},
                {"headers": {"Authorization": secret, "X-Request-ID": secret, "Cookie": secret, "User-Agent": secret}},
                {"headers": bearer(good), "json": {"query": secret, "index": secret, secret: secret}},
                {"headers": bearer(good), "json": {"query": secret, "filter": {"must": secret}}},
            ]
            for place in places:
                answer = await client.post("/v1/search", params={"key": secret}, **({"json": {"query": "x"}} | place))
                assert secret not in str(answer.headers)
            for url in (
                f"/{secret}",
                f"/v1/documents/{secret}",
                f"/?api_key={secret}",
                f"/v1/documents/x/{secret}#{secret}",
            ):
                await client.get(url, headers=bearer(good))
            await client.request(secret, "/v1/search")
    written = "\n".join(everything_logged)
    assert '"key": "site"' in written
    assert good not in written
    assert unknown not in written
    assert written.count("dupmae_***") >= 8


def test_a_trace_with_a_secret_in_it_is_written_without_it() -> None:
    secret = "dupmae_" + "Q" * 43
    try:
        raise ValueError(secret)
    except ValueError:
        record = logging.getLogger().makeRecord("x", 40, "x", 1, "%s", (secret,), sys.exc_info())
    line = Discreet("%(message)s").format(record)
    assert "ValueError: dupmae_***" in line
    assert secret not in line


async def test_every_answer_tells_browsers_to_show_guess_and_keep_nothing(serve: Serve) -> None:
    async with serve() as client:
        answers = [
            await client.post("/v1/search", **ASK),
            await client.get("/nowhere"),
            await client.post("/v1/search", content=b"x" * 300_000),
            await client.get("/openapi.json"),
        ]
        page = await client.get("/")
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["Cache-Control"] == "no-store"
    policy = page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"


async def test_urls_and_headers_are_bounded(serve: Serve) -> None:
    async with serve() as client:
        assert (await client.get("/livez", params={"x": "y" * 8_000})).status_code == 200
        check(await client.get("/livez", params={"x": "y" * MAX_URL_BYTES}), 414, "url-too-long")
        check(await client.get("/livez", headers={"X": "y" * MAX_HEADER_BYTES}), 431, "headers-too-large")
        many = {f"X-{number}": "" for number in range(MAX_HEADERS)}
        check(await client.get("/livez", headers=many), 431, "headers-too-large")


async def test_pages_of_other_origins_ask_only_where_they_are_named(locked: Locked, path: Path, serve: Serve) -> None:
    create_key(path, "site", ["search"])
    preflight = {
        "Origin": "https://a.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    async with serve() as client:
        assert "Access-Control-Allow-Origin" not in (await client.options("/v1/search", headers=preflight)).headers
    async with locked(cors_origins="https://a.example, http://localhost:3000") as client:
        allowed = await client.options("/v1/search", headers=preflight)
        assert allowed.status_code == 200
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://a.example"
        assert "Access-Control-Allow-Credentials" not in allowed.headers
        refused = await client.post("/v1/search", **ASK, headers={"Origin": "https://a.example"})
        assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, "https://a.example")
        for origin in ("https://b.example", "https://a.example.evil.example", "http://a.example", "null"):
            assert "Access-Control-Allow-Origin" not in (await client.get("/livez", headers={"Origin": origin})).headers


@pytest.mark.parametrize(
    "origins", ["*", "https://a.example/", "a.example", "https://*.example", "https://a.example;x"]
)
def test_an_origin_that_is_not_exact_is_refused(origins: str) -> None:
    with pytest.raises(ValueError, match="is no exact origin"):
        Settings(cors_origins=origins)


async def test_with_a_port_of_their_own_metrics_are_not_on_the_other(serve: Serve) -> None:
    async with serve(metrics_port=9_999) as client:
        check(await client.get("/metrics"), 404, "not-found")
        assert "/metrics" not in json.dumps((await client.get("/openapi.json")).json()["paths"])
