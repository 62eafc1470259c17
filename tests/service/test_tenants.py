"""A key with a tenant: whatever it asks, the answer is that of an index which holds the tenant's documents alone."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact
from indexer.documents import Document
from indexer.edge import EdgeEngine
from indexer.points import point_id
from indexer.store import FieldType, InvalidFilter, Store
from model.artifact import Artifact
from model.encoder import Encoder
from service.caller import Caller, Forbidden, Tenant
from service.keys import create_key
from service.settings import Settings
from tests.conftest import WORDS
from tests.service.conftest import Serve
from tests.service.test_problems import check

pytestmark = pytest.mark.anyio

RED = Tenant(field="metadata.team", value="red")
FIELDS: dict[str, FieldType] = {"metadata.team": "keyword", "metadata.lang": "keyword", "metadata.year": "integer"}


def documents() -> list[Document]:
    """Of two teams, of both, of none and of traps, with texts much alike."""
    words = random.Random(7)
    teams: list[JsonValue] = ["red", "blue", ["red", "blue"], None, "Red", "red ", "", ["blue"], {"red": "red"}]
    found = []
    for number, team in enumerate(teams * 5):
        metadata: dict[str, JsonValue] = {"lang": words.choice(["en", "de"]), "year": number, "secret": f"s{number}"}
        if team is not None:
            metadata["team"] = team
        text = " ".join(words.choices(WORDS.split(), k=12))
        found.append(Document(f"{number}", f"About {team}", text, metadata=metadata))
    return found


def is_red(document: Document) -> bool:
    team = document.metadata.get("team")
    return team == "red" or (isinstance(team, list) and "red" in team)


ALL = documents()
MINE = {document.id for document in ALL if is_red(document)}
OTHERS = sorted({document.id for document in ALL} - MINE)


@pytest.fixture(scope="module")
def data(tiny_artifact: Artifact, tiny_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Indexes `default`, with the documents; `mine`, with the tenant's alone; `plain`, which declares no field."""
    given = Settings(data=tmp_path_factory.mktemp("tenants"))
    keep_artifact(given, tiny_artifact)
    engine = EdgeEngine(given.data)
    mine = [document for document in ALL if document.id in MINE]
    for name, held, fields in (("default", ALL, FIELDS), ("mine", mine, FIELDS), ("plain", ALL, {})):
        engine.publish(build_index(engine, tiny_encoder, held, BuildOptions(index=name, fields=fields)))
    engine.close()
    return given.data


@asynccontextmanager
async def asked(serve: Serve, data: Path, path: Path, **changes: object) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the tenant's key."""
    secret = create_key(path / "keys.json", "red", ["search", "write"], tenant=RED)
    async with serve(data=data, keys=path / "keys.json", **changes) as client:
        client.headers["X-API-Key"] = secret
        yield client


CONDITIONS = st.one_of(
    st.builds(lambda key, value: {"key": key, "match": {"value": value}},
              st.sampled_from(["metadata.team", "metadata.lang"]), st.sampled_from(["red", "blue", "Red", "", "en"])),
    st.builds(lambda kind, values: {"key": "metadata.team", "match": {kind: values}},
              st.sampled_from(["any", "except"]), st.lists(st.sampled_from(["red", "blue"]), min_size=1, max_size=3)),
    st.builds(lambda ids: {"has_id": [point_id(id) for id in ids]}, st.lists(st.sampled_from(OTHERS), max_size=4)),
    st.builds(lambda id, key: {"key": key, "match": {"value": id}},
              st.sampled_from(OTHERS), st.sampled_from(["parent_id", "doc_id"])),
    st.builds(lambda low: {"key": "metadata.year", "range": {"gte": low}}, st.integers(-5, 50)),
    st.sampled_from([{"is_empty": {"key": "metadata.team"}}, {"is_null": {"key": "metadata.team"}}]),
)  # fmt: skip


def clauses(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.one_of(st.none(), inner, st.lists(inner, max_size=3))
    least = st.one_of(
        st.none(),
        st.builds(lambda each, n: {"conditions": each, "min_count": n}, st.lists(inner, min_size=1, max_size=3),
                  st.integers(1, 3)),
    )  # fmt: skip
    return st.fixed_dictionaries({}, optional={"must": some, "should": some, "must_not": some, "min_should": least})


HOSTILE = clauses(st.recursive(CONDITIONS, clauses, max_leaves=8))
BROKEN = st.sampled_from(["x", 7, [[]], [{"nested": {}}], {"key": "metadata.secret", "match": {"value": "s1"}}, [None]])


@pytest.fixture(scope="module")
def store(data: Path) -> Iterator[Store]:
    engine = EdgeEngine(data)
    opened = engine.open("default", engine.published("default").id)
    yield opened
    opened.close()
    engine.close()


@given(
    filter=st.one_of(st.none(), HOSTILE, st.fixed_dictionaries({"must": BROKEN}), st.fixed_dictionaries({"x": BROKEN}))
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_filter_finds_more_or_less_than_it_would_among_the_tenants_documents(
    store: Store, tiny_encoder: Encoder, filter: dict[str, Any] | None
) -> None:
    query = tiny_encoder.encode_queries(["the king and the queen"])[0].vector
    caller = Caller("red", frozenset({"search"}), tenant=RED)

    def found(confined: Any) -> list[tuple[str, float]] | str:
        try:
            hits = store.search(query, mode="fused", limit=100, depth=200, filter=confined)
        except InvalidFilter as error:
            return str(error)
        return [(str(hit.point.payload["doc_id"]), hit.score) for hit in hits]

    everybody = found(filter)
    expected = everybody if isinstance(everybody, str) else [hit for hit in everybody if hit[0] in MINE]
    assert found(caller.filter(filter, store.build)) == expected


@pytest.mark.parametrize("mode", ["fused", "cls", "ot", "rrf"])
@pytest.mark.parametrize("group_by", ["document", "passage"])
async def test_answers_are_those_of_an_index_with_the_tenants_documents_alone(
    serve: Serve, data: Path, tmp_path: Path, mode: str, group_by: str
) -> None:
    body = {"query": "water and fire", "limit": 100, "mode": mode, "group_by": group_by, "facets": sorted(FIELDS)}
    async with asked(serve, data, tmp_path) as client:
        alone = (await client.post("/v1/search", json=body | {"index": "mine"})).json()
        answer = (await client.post("/v1/search", json=body)).json()
        batch = await client.post("/v1/search:batch", json={"searches": [body]})
    assert {result["id"] for result in answer["results"]} == MINE
    assert answer["results"] == alone["results"] == batch.json()["answers"][0]["answer"]["results"]
    assert answer["facets"] == alone["facets"]
    assert answer["meta"]["index"].keys() == {"name", "build"}


async def test_an_answer_to_somebody_who_sees_all_is_none_of_the_tenants(
    serve: Serve, data: Path, tmp_path: Path
) -> None:
    """The same filter, asked for by one and forced on the other: for the first words are weighed by all documents."""
    body = {"query": "water and fire", "limit": 100}
    everybody = create_key(tmp_path / "keys.json", "all", ["search"])
    async with asked(serve, data, tmp_path) as client:
        free = (
            await client.post("/v1/search", json=body | {"filter": RED.confine(None)}, headers={"X-API-Key": everybody})
        ).json()
        answer = (await client.post("/v1/search", json=body)).json()
        alone = (await client.post("/v1/search", json=body | {"index": "mine"})).json()
    assert answer["results"] == alone["results"]
    assert {each["id"]: each["score"] for each in free["results"]}.keys() == MINE
    assert free["results"] != answer["results"]


async def test_pages_show_the_tenants_documents_and_a_cursor_of_somebody_else_opens_nothing(
    serve: Serve, data: Path, tmp_path: Path
) -> None:
    body: dict[str, Any] = {"query": "water and fire", "limit": 4}
    other = create_key(tmp_path / "keys.json", "admin", ["admin"])
    async with asked(serve, data, tmp_path) as client:
        seen, cursor = [], None
        while True:
            answer = (await client.post("/v1/search", json=body | ({"cursor": cursor} if cursor else {}))).json()
            seen += [result["id"] for result in answer["results"]]
            if not (cursor := answer.get("next_cursor")):
                break
        assert sorted(seen) == sorted(MINE)
        everybody = (await client.post("/v1/search", json=body, headers={"X-API-Key": other})).json()
        check(await client.post("/v1/search", json=body | {"cursor": everybody["next_cursor"]}), 422, "invalid-cursor")


async def test_a_document_of_somebody_else_is_as_if_it_were_not(serve: Serve, data: Path, tmp_path: Path) -> None:
    async with asked(serve, data, tmp_path) as client:
        for theirs in OTHERS[:9]:
            for method, end, body in (("GET", "", None), ("POST", ":similar", {})):
                answers = [await client.request(method, f"/v1/documents/{id}{end}", json=body) for id in (theirs, "n")]
                theirs_is, absent_is = (check(answer, 404, "document-not-found")["detail"] for answer in answers)
                assert theirs_is.replace(repr(theirs), "ID") == absent_is.replace(repr("n"), "ID")
        mine = sorted(MINE)[0]
        assert (await client.get(f"/v1/documents/{mine}")).json()["id"] == mine
        similar = (await client.post(f"/v1/documents/{mine}:similar", json={"limit": 100})).json()
    assert {result["id"] for result in similar["results"]} == MINE - {mine}


async def test_an_explanation_knows_the_tenants_documents_alone(serve: Serve, data: Path, tmp_path: Path) -> None:
    body = {"query": "water and fire", "rank": True, "limit": 3}
    async with asked(serve, data, tmp_path) as client:
        for id in sorted(MINE):
            alone = (await client.post("/v1/explain", json=body | {"id": id, "index": "mine"})).json()
            answer = (await client.post("/v1/explain", json=body | {"id": id})).json()
            assert answer.pop("meta")["index"].keys() == {"name", "build"}
            del alone["meta"]
            assert answer == alone
        details = []
        for id in (OTHERS[0], "n"):
            answer = await client.post("/v1/explain", json=body | {"id": id})
            details.append(check(answer, 404, "document-not-found")["detail"].replace(repr(id), "ID"))
        assert details[0] == details[1]


async def test_a_tenant_learns_of_indexes_what_it_may_search_and_of_builds_nothing(
    serve: Serve, data: Path, tmp_path: Path
) -> None:
    few = {"X-API-Key": create_key(tmp_path / "keys.json", "few", ["admin"], indexes=["mine"])}
    admin = {"X-API-Key": create_key(tmp_path / "keys.json", "admin", ["admin"])}
    async with asked(serve, data, tmp_path) as client:
        listed = (await client.get("/v1/indexes")).json()["indexes"]
        assert [(index["name"], index.get("documents")) for index in listed] == [
            ("default", None), ("mine", None), ("plain", None)
        ]  # fmt: skip
        listed = (await client.get("/v1/indexes", headers=few)).json()["indexes"]
        assert [(index["name"], index["documents"]) for index in listed] == [("mine", len(MINE))]
        for key in ({}, few):
            check(await client.get("/v1/builds", headers=key), 403, "forbidden")
            check(await client.post("/v1/builds/x:publish", json={}, headers=key), 403, "forbidden")
            check(await client.post("/v1/builds:rollback", json={}, headers=key), 403, "forbidden")
        assert (await client.get("/v1/builds", headers=admin)).status_code == 200
        check(await client.post("/v1/builds:rollback", json={}, headers=admin), 409, "no-earlier-build")


async def test_an_index_that_does_not_declare_the_tenants_field_answers_nothing(
    serve: Serve, data: Path, tmp_path: Path
) -> None:
    async with asked(serve, data, tmp_path) as client:
        for answer in (
            await client.post("/v1/search", json={"query": "x", "index": "plain"}),
            await client.get("/v1/documents/0?index=plain"),
            await client.post("/v1/documents/0:similar", json={"index": "plain"}),
            await client.post("/v1/explain", json={"query": "x", "id": "0", "index": "plain"}),
        ):
            assert "--field metadata.team=keyword" in check(answer, 403, "forbidden")["detail"]


@pytest.mark.parametrize("type", ["text", "integer", None])
def test_a_field_that_is_no_keyword_is_not_trusted_to_tell_tenants_apart(store: Store, type: FieldType | None) -> None:
    build = store.build.model_copy(update={"fields": {"metadata.team": type} if type else {}})
    with pytest.raises(Forbidden, match="does not declare as keyword"):
        Caller("red", frozenset({"search"}), tenant=RED).filter(None, build)


async def test_a_tenant_writes_its_own_documents_and_no_others(
    serve: Serve, tmp_path: Path, tiny_artifact: Artifact, tiny_encoder: Encoder
) -> None:
    given = Settings(data=tmp_path / "data")
    keep_artifact(given, tiny_artifact)
    engine = EdgeEngine(given.data)
    engine.publish(build_index(engine, tiny_encoder, ALL[:9], BuildOptions(fields=FIELDS)))
    engine.close()
    async with asked(serve, given.data, tmp_path, writable=True) as client:
        created = await client.put("/v1/documents/new", json={"text": "a dog", "metadata": {"lang": "en"}})
        assert (created.status_code, set(created.json())) == (201, {"id", "index", "build"})
        held = (await client.get("/v1/documents/new")).json()["metadata"]
        assert held == {"lang": "en", "team": "red"}
        own = await client.put("/v1/documents/0", json={"text": "a cat", "metadata": {"team": "red"}})
        assert own.status_code == 200
        others: list[JsonValue] = ["blue", ["red", "blue"], {}, 7]
        for team in others:
            wrong = await client.put("/v1/documents/new", json={"text": "a cat", "metadata": {"team": team}})
            assert "leave it out" in check(wrong, 422, "invalid-request")["detail"]
        for number, document in enumerate(ALL[1:9], start=1):
            taken = await client.put(f"/v1/documents/{number}", json={"text": "mine now"})
            held_by = check(taken, 409, "document-held")["detail"]
            assert document.text not in held_by
            gone = await client.delete(f"/v1/documents/{number}")
            check(gone, 409, "document-held") if is_red(document) else check(gone, 404, "document-not-found")
        assert (await client.delete("/v1/documents/new")).status_code == 200
    engine = EdgeEngine(given.data)
    opened = engine.open("default", engine.published("default").id)
    kept = opened.get([point_id(str(number)) for number in range(1, 9)])
    assert sorted(str(point.payload["text"]) for point in kept) == sorted(document.text for document in ALL[1:9])
    opened.close()
    engine.close()
