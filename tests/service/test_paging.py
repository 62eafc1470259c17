"""Pages are cut from one list: none doubles a result, none skips one, and what changed in between is said."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact
from indexer.documents import Document
from indexer.edge import EdgeEngine
from indexer.grouping import GroupBy, Wanted
from indexer.points import point_id
from indexer.store import Hit, Mode, Point
from model.artifact import Artifact
from model.encoder import Encoder
from model.vector import FusedVector
from service.cursors import SECRET_FILE, CursorExpired
from service.paging import Page, first_page, page
from service.searcher import Searcher
from service.settings import Settings
from tests.indexer.brute_force import new_build, random_queries, random_vector
from tests.service.conftest import DOCUMENTS, Serve
from tests.service.test_documents import Site
from tests.service.test_problems import check

MODES: list[Mode] = ["fused", "cls", "ot", "rrf"]
MANY, PASSAGES = 90, 5
QUERIES = random_queries(5, seed=7)


@pytest.fixture(scope="module")
def searcher(tiny_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    """90 documents of 1 to 5 passages with random vectors, so that what is looked at decides what is found."""
    rng = np.random.default_rng(3)
    points = [
        Point(point_id(f"d{n}", chunk), random_vector(rng), {"doc_id": f"d{n}", "parent_id": f"d{n}", "chunk": chunk})
        for n in range(MANY)
        for chunk in range(1 + n % PASSAGES)
    ]
    facts = {"fingerprint": tiny_encoder.fingerprint, "documents": MANY, "passages": len(points)}
    store = EdgeEngine(tmp_path_factory.mktemp("engine")).create(new_build("b1").model_copy(update=facts))
    store.upsert(points)
    with closing(Searcher(tiny_encoder, store)) as searcher:
        yield searcher


def pages(searcher: Searcher, query: FusedVector, wanted: Wanted, sizes: Sequence[int], depth: int) -> Iterator[Page]:
    at = first_page("b1", "search", depth)
    for size in sizes:
        found = page(searcher, query, wanted, at, size)
        yield found
        if found.following is None:
            return
        at = found.following


def ids(hits: Sequence[Hit]) -> list[str]:
    return [hit.point.id for hit in hits]


@given(
    query=st.sampled_from(QUERIES),
    mode=st.sampled_from(MODES),
    group_by=st.sampled_from(["document", "passage"]),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    depth=st.sampled_from([40, 100, 400]),
    rank=st.none() | st.integers(0, 60),
)
@settings(deadline=None, max_examples=60)
def test_pages_of_any_sizes_are_one_large_request(
    searcher: Searcher,
    query: FusedVector,
    mode: Mode,
    group_by: GroupBy,
    sizes: list[int],
    depth: int,
    rank: int | None,
) -> None:
    wanted = Wanted(mode, group_by=group_by)
    if rank is not None and mode != "rrf":
        everything = searcher.retrieve(query, wanted, limit=100, depth=depth).hits
        wanted = Wanted(mode, group_by=group_by, min_score=everything[min(rank, len(everything) - 1)].score)
    each = 3 if group_by == "document" else 1
    while sum(sizes) * each > depth and len(sizes) > 1:
        sizes = sizes[:-1]
    found = list(pages(searcher, query, wanted, sizes, max(depth, sizes[0] * each)))
    together = [hit for one in found for hit in one.hits]
    large = page(searcher, query, wanted, first_page("b1", "search", max(depth, sizes[0] * each)), sum(sizes))
    assert ids(together) == ids(large.hits)
    assert all(hit.score >= (wanted.min_score or -np.inf) for hit in together)
    assert [one.complete for one in found] == [True] * len(found)
    assert (found[-1].following is None) == (large.following is None)


@pytest.mark.parametrize("group_by", ["document", "passage"])
@pytest.mark.parametrize("mode", MODES)
def test_pages_end_where_the_candidates_do_and_say_whether_there_may_be_more(
    searcher: Searcher, mode: Mode, group_by: GroupBy
) -> None:
    wanted = Wanted(mode, group_by=group_by)
    for depth, reached in ((20, False), (1000, True)):
        found = list(pages(searcher, QUERIES[0], wanted, [7] * 100, depth))
        together = ids([hit for one in found for hit in one.hits])
        assert len(together) == len(set(together))
        assert found[-1].following is None
        assert found[-1].complete == reached
        assert all(one.complete for one in found[:-1])


def test_the_last_page_names_no_other_also_when_it_is_full(searcher: Searcher) -> None:
    found = list(pages(searcher, QUERIES[0], Wanted(), [MANY // 3] * 9, 1000))
    assert [len(one.hits) for one in found] == [30, 30, 30]


def test_a_cut_by_score_is_complete_though_the_bound_was_reached(searcher: Searcher) -> None:
    best = searcher.retrieve(QUERIES[0], limit=3).hits
    wanted = Wanted(min_score=best[-1].score)
    assert page(searcher, QUERIES[0], wanted, first_page("b1", "s", 20), 50).complete
    found = searcher.retrieve(QUERIES[0], wanted, limit=50, depth=20, most=20)
    assert ids(found.hits) == ids(best)
    assert found.complete
    assert not searcher.retrieve(QUERIES[0], limit=50, depth=20, most=20).complete


def test_other_results_than_were_shown_are_an_expired_cursor(searcher: Searcher) -> None:
    at = page(searcher, QUERIES[0], Wanted(), first_page("b1", "s", 100), 5).following
    assert at is not None
    with pytest.raises(CursorExpired, match="the first 5 results are no longer those"):
        page(searcher, QUERIES[1], Wanted(), at, 5)


async def ask(client: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await client.post("/v1/search", json={"query": "the king", "limit": 2, **body})


@pytest.mark.anyio
async def test_following_the_cursor_gives_every_document_once_whatever_the_limits(serve: Serve) -> None:
    async with serve() as client:
        large = (await ask(client, limit=100)).json()
        answer = (await ask(client)).json()
        found = answer["results"]
        for limit in (1, 3, 5):
            if "next_cursor" not in answer:
                break
            answer = (await ask(client, cursor=answer["next_cursor"], limit=limit, **{"with": []})).json()
            found += answer["results"]
    assert [each["id"] for each in found] == [each["id"] for each in large["results"]]
    assert len(found) == len(DOCUMENTS)
    assert "next_cursor" not in answer
    assert "next_cursor" not in large


@pytest.mark.anyio
@pytest.mark.parametrize(
    "change",
    [
        {"query": "the queen"},
        {"mode": "ot"},
        {"group_by": "passage"},
        {"min_score": -1000.0},
        {"filter": {"must": [{"key": "metadata.lang", "match": {"value": "en"}}]}},
        {"depth": 100},
        {"index": "letters"},
    ],
    ids=str,
)
async def test_a_cursor_of_another_search_is_refused(serve: Serve, change: dict[str, object]) -> None:
    async with serve() as client:
        cursor = (await ask(client)).json()["next_cursor"]
        assert (await ask(client, cursor=cursor, index="default")).status_code == 200
        problem = check(await ask(client, cursor=cursor, **change), 422, "invalid-cursor")
        foreign = check(await ask(client, cursor=f"{cursor[:-1]}!"), 422, "invalid-cursor")
    assert "of another search" in problem["detail"]
    assert "not a cursor that this service signed" in foreign["detail"]


@pytest.mark.anyio
async def test_replicas_take_each_others_cursors_if_they_share_a_folder_or_a_secret(
    serve: Serve, settings: Settings
) -> None:
    given = Settings(cursor_secret="a secret of many characters").cursor_secret
    async with serve() as one, serve() as two, serve(cursor_secret=given) as three, serve(cursor_secret=given) as four:
        cursor = (await ask(one)).json()["next_cursor"]
        assert (await ask(two, cursor=cursor)).status_code == 200
        check(await ask(three, cursor=cursor), 422, "invalid-cursor")
        theirs = (await ask(three)).json()["next_cursor"]
        assert (await ask(four, cursor=theirs)).status_code == 200
    assert (settings.data / SECRET_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.anyio
async def test_the_bound_on_the_depth_is_named(serve: Serve) -> None:
    async with serve(max_depth=50) as client:
        problem = check(await ask(client, depth=51), 422, "invalid-request")
        assert (await ask(client, depth=50)).status_code == 200
    assert "DUPMAE_MAX_DEPTH=50" in problem["detail"]


@pytest.mark.anyio
async def test_min_score_leaves_out_what_scores_less_and_is_refused_with_ranks(serve: Serve) -> None:
    async with serve() as client:
        everything = (await ask(client, limit=100)).json()["results"]
        least = everything[2]["score"]
        answer = (await ask(client, limit=100, min_score=least)).json()
        none = (await ask(client, min_score=1e9)).json()
        problem = check(await ask(client, min_score=0, mode="rrf"), 422, "invalid-request")
    assert answer["results"] == everything[:3]
    assert answer["meta"]["complete"]
    assert (none["results"], none["meta"]["complete"]) == ([], True)
    assert problem["errors"][0]["field"] == "min_score"


@pytest.mark.anyio
async def test_a_write_that_changes_what_was_shown_expires_the_cursor_and_another_does_not(
    tmp_path: Path, tiny_artifact: Artifact, serve: Serve
) -> None:
    async with Site(tmp_path, tiny_artifact, serve).service() as client:
        first = (await ask(client)).json()
        rest = (await ask(client, cursor=first["next_cursor"], limit=100)).json()["results"]
        await client.delete(f"/v1/documents/{rest[-1]['id']}")
        after = (await ask(client, cursor=first["next_cursor"], limit=100)).json()
        assert after["results"] == rest[:-1]
        await client.delete(f"/v1/documents/{first['results'][0]['id']}")
        problem = check(await ask(client, cursor=first["next_cursor"]), 410, "cursor-expired")
    assert "documents were written or deleted since" in problem["detail"]


@pytest.mark.anyio
async def test_a_cursor_never_goes_on_in_another_build(
    tmp_path: Path, tiny_artifact: Artifact, tiny_encoder: Encoder, serve: Serve
) -> None:
    settings = Settings(data=tmp_path, threads=1)
    keep_artifact(settings, tiny_artifact)
    engine = EdgeEngine(tmp_path)
    for documents in (DOCUMENTS, [*DOCUMENTS, Document("new", "", "the king")]):
        engine.publish(build_index(engine, tiny_encoder, documents, BuildOptions()))
        async with serve(data=tmp_path) as client:
            if documents is DOCUMENTS:
                cursor = (await ask(client)).json()["next_cursor"]
            else:
                problem = check(await ask(client, cursor=cursor), 410, "cursor-expired")
    old, new = (build.id for build in reversed(engine.builds("default")))
    assert f"of build {old}" in problem["detail"]
    assert f"from build {new}" in problem["detail"]
