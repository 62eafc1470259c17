"""What is remembered is what would be worked out now, and is worked out once."""

import asyncio
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact
from indexer.documents import Document
from indexer.edge import EdgeEngine
from model.artifact import Artifact
from model.encoder import Encoder
from service.cache import ENTRY_BYTES, Cache, Flights
from service.settings import Settings
from tests.service.conftest import Serve

pytestmark = pytest.mark.anyio

PUTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 900)), max_size=60)


@given(PUTS)
def test_the_bound_holds_and_what_was_used_last_is_what_stays(puts: list[tuple[int, int]]) -> None:
    cache = Cache(16 * ENTRY_BYTES, lambda kind, hit: None)
    order: list[int] = []
    for key, size in puts:
        cache.put("vectors", key, size, size=size)
        fits = size + ENTRY_BYTES <= 2 * ENTRY_BYTES
        order = [*(each for each in order if each != key or not fits), *([key] if fits else [])]
    kept = [key for key in order if cache.get("vectors", key) is not None]
    assert cache.bytes <= 16 * ENTRY_BYTES
    assert kept == order[len(order) - len(kept) :]
    assert len(cache) == len(kept)


def test_kinds_are_apart_and_look_ups_are_counted() -> None:
    seen: list[tuple[str, bool]] = []
    cache = Cache(2**20, lambda kind, hit: seen.append((kind, hit)))
    cache.put("vectors", "a", 1, size=1)
    assert (cache.get("vectors", "a"), cache.get("answers", "a")) == (1, None)
    assert seen == [("vectors", True), ("answers", False)]


async def test_the_same_work_is_done_once_and_an_error_reaches_all_who_wait() -> None:
    flights, go_on, begun = Flights(), asyncio.Event(), []

    async def work() -> int:
        begun.append(1)
        await go_on.wait()
        raise RuntimeError("broken")

    tasks = [asyncio.create_task(flights.join("a", work)) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    go_on.set()
    assert [type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)] == [RuntimeError] * 3
    assert len(begun) == 1
    with pytest.raises(RuntimeError):
        await flights.join("a", work)
    assert len(begun) == 2


async def test_work_goes_on_while_somebody_waits_and_ends_with_the_last() -> None:
    flights, go_on, ended = Flights(), asyncio.Event(), []

    async def work() -> int:
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return 7

    first, second = (asyncio.create_task(flights.join("a", work)) for _ in range(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    assert ended == []
    second.cancel()
    await asyncio.wait([second])
    third = asyncio.create_task(flights.join("a", work))  # the cancelled work is not joined
    await asyncio.sleep(0)
    assert ended == ["cancelled"]
    go_on.set()
    assert await third == 7


class Site:
    """A data folder of one index."""

    def __init__(self, data: Path, artifact: Artifact) -> None:
        self.data = data
        self.encoder = Encoder(keep_artifact(Settings(data=data), artifact), threads=1)

    def publish(self, *texts: str) -> str:
        """A build of these documents, the first word of each its id; published."""
        documents = [Document(text.split()[0], text=text, metadata={"lang": "en"}) for text in texts]
        with closing(EdgeEngine(self.data)) as engine:
            build = build_index(engine, self.encoder, documents, BuildOptions(fields={"metadata.lang": "keyword"}))
            engine.publish(build)
        return build.id


@pytest.fixture
def site(tmp_path: Path, tiny_artifact: Artifact) -> Site:
    return Site(tmp_path, tiny_artifact)


async def search(client: httpx.AsyncClient, **options: object) -> dict[str, object]:
    response = await client.post("/v1/search", json={"query": "the king", **options})
    assert response.status_code == 200, response.text
    answer: dict[str, object] = response.json()
    return answer


async def metric(client: httpx.AsyncClient, cache: str, outcome: str) -> int:
    name = f'dupmae_cache_total{{cache="{cache}",outcome="{outcome}"}} '
    text = (await client.get("/metrics")).text
    return int(float(text.partition(name)[2].partition("\n")[0] or 0))


def without_times(answer: dict[str, object]) -> dict[str, object]:
    meta = answer["meta"]
    assert isinstance(meta, dict)
    return {**answer, "meta": {name: value for name, value in meta.items() if name != "took_ms"}}


async def test_a_remembered_answer_is_the_answer_and_says_that_it_was_remembered(serve: Serve) -> None:
    async with serve() as client:
        options = {"with": ["parts", "explain"], "limit": 3}
        first, again = await search(client, **options), await search(client, **options)
        assert without_times(first) == without_times(again)
        assert [*again["meta"]["took_ms"]] == ["cache"]  # type: ignore[index]
        assert [await metric(client, "answers", outcome) for outcome in ("hit", "miss")] == [1, 1]
        assert [await metric(client, "vectors", outcome) for outcome in ("hit", "miss")] == [0, 1]
        assert 'dupmae_search_requests_total{mode="fused",status="200"} 2.0' in (await client.get("/metrics")).text


@pytest.mark.parametrize(
    "other",
    [
        {"limit": 2},
        {"mode": "cls"},
        {"group_by": "passage"},
        {"with": ["explain"]},
        {"filter": {"must": [{"key": "metadata.lang", "match": {"value": "en"}}]}},
        {"index": "letters"},
        {"min_score": 0.5},
        {"facets": ["metadata.lang"]},
        {"depth": 20},
    ],
)
async def test_another_request_shares_the_vector_and_not_the_answer(serve: Serve, other: dict[str, object]) -> None:
    async with serve() as client, serve(cache_mb=0) as forgetful:
        await search(client)
        answer = await search(client, **other)
        assert without_times(answer) == without_times(await search(forgetful, **other))
        assert await metric(client, "answers", "hit") == 0
        assert await metric(client, "vectors", "hit") == 1


async def test_identical_requests_that_arrive_together_are_worked_out_once(serve: Serve) -> None:
    async with serve() as client:
        answers = await asyncio.gather(*(search(client) for _ in range(8)))
        assert all(without_times(answer) == without_times(answers[0]) for answer in answers)
        assert "dupmae_batch_size_count 1.0" in (await client.get("/metrics")).text


async def test_a_setting_switches_it_off(serve: Serve) -> None:
    async with serve(cache_mb=0) as client:
        answers = [await search(client), await search(client)]
        assert all("encode" in answer["meta"]["took_ms"] for answer in answers)  # type: ignore[index]
        assert await metric(client, "answers", "miss") == await metric(client, "vectors", "miss") == 0


async def test_a_refusal_is_not_remembered_as_an_answer(serve: Serve) -> None:
    async with serve() as client:
        for _ in range(2):
            assert (await client.post("/v1/search", json={"query": "\u4e2d"})).status_code == 422
        assert await metric(client, "answers", "hit") == 0


async def test_nothing_outlives_a_switch_though_searches_go_on(serve: Serve, site: Site) -> None:
    """Each answer names a build and holds that build's documents; once the new one answers, the old never does."""
    builds = {site.publish("old the king"): "old"}
    seen: list[str] = []

    async def ask() -> str:
        answer = await search(client)
        build = answer["meta"]["index"]["build"]  # type: ignore[index]
        assert {result["id"] for result in answer["results"]} == {builds[build]}  # type: ignore[attr-defined]
        seen.append(build)
        return str(build)

    async with serve(data=site.data, switch_s=0.05) as client, asyncio.timeout(60):
        await ask()
        for name in ("new", "newer"):
            build = await asyncio.to_thread(site.publish, f"{name} the king")
            builds[build] = name
            while (await asyncio.gather(*(ask() for _ in range(4))))[0] != build:
                await asyncio.sleep(0.01)
            assert {await ask() for _ in range(4)} == {build}
        assert await metric(client, "answers", "hit") > 0
    assert seen == sorted(seen, key=list(builds).index)


async def test_who_asks_after_a_write_was_answered_sees_it_whatever_is_remembered(serve: Serve, site: Site) -> None:
    """PUT and DELETE race with searches for the same query: an answer is never older than its question."""
    await asyncio.to_thread(site.publish, "king 0 the king", "queen the king")
    begun, acknowledged, writing = 0, 0, True  # even: the document says so; odd: it is deleted

    def version(answer: dict[str, object]) -> int | None:
        texts = [result["text"] for result in answer["results"] if result["id"] == "king"]  # type: ignore[attr-defined]
        return int(texts[0].split()[1]) if texts else None

    async def keep_asking() -> int:
        asked = 0
        while writing:
            before = acknowledged
            found = version(await search(client))
            allowed = range(before, begun + 1)
            assert any(number % 2 if found is None else number == found for number in allowed), (found, allowed)
            asked += 1
            await asyncio.sleep(0.001)  # answers from memory alone would leave the threads that write no time
        return asked

    async with serve(data=site.data, writable=True) as client, asyncio.timeout(120):
        tasks = [asyncio.create_task(keep_asking()) for _ in range(3)]
        for number in range(1, 31):
            begun = number
            if number % 2:
                changed = await client.delete("/v1/documents/king")
            else:
                changed = await client.put("/v1/documents/king", json={"text": f"king {number} the king"})
            assert changed.status_code in {200, 201}, changed.text
            acknowledged = number
            assert version(await search(client)) == (None if number % 2 else number)
            assert version(await search(client)) == (None if number % 2 else number)
        writing = False
        assert all([await task for task in tasks])
        assert await metric(client, "answers", "hit") > 0
