"""A store that is away, slow or half there: an honest answer within the deadline, and back to normal by itself."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact
from indexer.documents import Document
from model.artifact import Artifact
from model.encoder import Encoder, Encoding, Tokenized
from service.settings import Settings
from tests.service.conftest import Serve
from tests.service.qdrant_server import Fault, QdrantServer, qdrant_server

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning"),
]

THREADS = 2
LONG_MS = 30_000

Task = asyncio.Task[httpx.Response]


class Site(NamedTuple):
    """A server with two indexes, `default` and `letters`, and a data folder with their model."""

    server: QdrantServer
    data: Path


@pytest.fixture(scope="module")
def site(tiny_artifact: Artifact, tiny_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("data")
    keep_artifact(Settings(data=data), tiny_artifact)
    with qdrant_server() as server:
        for index, text in {"default": "the king of the island", "letters": "the letter a"}.items():
            documents = [Document("one", text=text)]
            server.engine.publish(build_index(server.engine, tiny_encoder, documents, BuildOptions(index=index)))
        yield Site(server, data)


@asynccontextmanager
async def running(serve: Serve, site: Site, timeout_ms: int, **changes: object) -> AsyncIterator[httpx.AsyncClient]:
    """A service that has both indexes open; all is well again when it ends."""
    settings = {"data": site.data, "timeout_ms": timeout_ms, "switch_s": 0.05, "store_threads": THREADS}
    async with serve(qdrant_url=site.server.url, **(settings | changes)) as client:
        try:
            await until_ready(client, 200)
            assert (await search(client, "letters")).status_code == 200
            yield client
        finally:
            site.server.mends()


async def search(client: httpx.AsyncClient, index: str = "default", timeout_ms: int = LONG_MS) -> httpx.Response:
    return await client.post("/v1/search", json={"query": "the king", "index": index, "timeout_ms": timeout_ms})


async def until_ready(client: httpx.AsyncClient, status: int) -> httpx.Response:
    async with asyncio.timeout(60):
        while (answer := await client.get("/readyz")).status_code != status:
            await asyncio.sleep(0.01)
    return answer


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ("away", 503, "store-unavailable"),
        ("hangs", 504, "deadline-exceeded"),
        ("error", 503, "store-unavailable"),
        ("cuts", 503, "store-unavailable"),
        ("garbage", 503, "store-unavailable"),
    ],
)
async def test_a_fault_is_said_in_time_readiness_follows_it_and_all_is_well_when_it_ends(
    serve: Serve, site: Site, fault: Fault, status: int, kind: str
) -> None:
    async with running(serve, site, timeout_ms=1_000) as client:
        site.server.breaks(fault)
        failed = await search(client)
        assert (failed.status_code, failed.json()["type"]) == (status, f"urn:dupmae:{kind}")
        assert ("Retry-After" in failed.headers) == (status == 503)
        unready = await until_ready(client, 503)
        assert unready.json()["type"] == "urn:dupmae:not-ready"
        assert (await client.get("/livez")).status_code == 200
        seen = (await client.get("/metrics")).text
        assert {"dupmae_ready 0.0", 'dupmae_store_away{index="default"} 1.0'} <= set(seen.splitlines())
        site.server.mends()
        await until_ready(client, 200)
        seen = (await client.get("/metrics")).text
        assert {"dupmae_ready 1.0", 'dupmae_store_away{index="default"} 0.0'} <= set(seen.splitlines())
        found = await search(client)
        assert [result["id"] for result in found.json()["results"]] == ["one"]


async def test_one_collection_that_hangs_takes_no_thread_from_another_index(serve: Serve, site: Site) -> None:
    async with running(serve, site, LONG_MS) as client:
        stuck = await hang(client, site, callers=5 * THREADS)
        for _ in range(3):
            assert (await search(client, "letters")).status_code == 200
        site.server.mends()
        assert {answer.status_code for answer in await asyncio.gather(*stuck)} == {200}


async def test_nothing_piles_up_behind_a_store_that_hangs(serve: Serve, site: Site) -> None:
    """It was asked for what the threads held and for nothing that had become late meanwhile."""
    async with running(serve, site, LONG_MS) as client:
        stuck = await hang(client, site, callers=10 * THREADS, timeout_ms=500)
        answers = await asyncio.gather(*stuck)
        assert {answer.status_code for answer in answers} == {504}
        assert not site.server.hanging.acquire(blocking=False)
        site.server.mends()
        assert (await search(client)).status_code == 200


async def test_who_has_no_room_at_the_store_is_refused_before_anything_is_encoded(
    serve: Serve, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = Encoder.encode_tokenized

    def counted(encoder: Encoder, texts: Sequence[Tokenized]) -> list[Encoding]:
        encoded.append(len(texts))
        return encode(encoder, texts)

    monkeypatch.setattr(Encoder, "encode_tokenized", counted)
    unwatched = {"switch_s": 3600.0}  # or the look at the store would wait in the queue too
    async with running(serve, site, LONG_MS, max_queue=2, cache_mb=0, **unwatched) as client:
        stuck = await hang(client, site, callers=THREADS)
        stuck += [asyncio.create_task(search(client)) for _ in range(2)]
        async with asyncio.timeout(60):
            while "dupmae_store_queue_depth 2.0" not in (await client.get("/metrics")).text.splitlines():
                await asyncio.sleep(0.01)
        before = sum(encoded)
        refused = await asyncio.gather(*(search(client) for _ in range(5)))
        assert {answer.status_code for answer in refused} == {429}
        assert sum(encoded) == before
        site.server.mends()
        assert {answer.status_code for answer in await asyncio.gather(*stuck)} == {200}


async def test_a_service_that_starts_before_its_store_is_ready_when_that_is(serve: Serve, site: Site) -> None:
    site.server.breaks("away")
    settings = {"data": site.data, "timeout_ms": LONG_MS, "qdrant_url": site.server.url}
    async with serve(**settings) as client:
        assert "does not answer" in (await until_ready(client, 503)).json()["detail"]
        site.server.mends()
        await until_ready(client, 200)


async def hang(client: httpx.AsyncClient, site: Site, *, callers: int, timeout_ms: int = LONG_MS) -> list[Task]:
    """Callers of an index whose collection hangs; every thread that it has is in a call when this returns."""
    while site.server.hanging.acquire(blocking=False):
        pass
    site.server.breaks("hangs", only=f"/collections/default--{site.server.engine.published('default').id}/points/query")
    tasks = [asyncio.create_task(search(client, timeout_ms=timeout_ms)) for _ in range(callers)]
    for _ in range(THREADS):
        assert await asyncio.to_thread(site.server.hanging.acquire, timeout=30)
    return tasks
