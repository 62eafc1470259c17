"""`/v1/documents/{id}`: what is written is found at once, kept for good, and refused by name."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from qdrant_client import QdrantClient

from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact, publish, rollback
from indexer.documents import Document
from indexer.edge import EdgeEngine
from indexer.qdrant import QdrantEngine
from indexer.store import Build, Engine
from model.artifact import Artifact
from model.encoder import Encoder
from service.searcher import Searchers
from service.settings import Settings
from tests.service.conftest import DOCUMENTS, Serve

pytestmark = pytest.mark.anyio


class Site:
    """A data folder with one published index, and a service that takes live writes to it."""

    def __init__(self, data: Path, artifact: Artifact, serve: Serve) -> None:
        self.settings = Settings(data=data, threads=1)
        self.engine: Engine = EdgeEngine(data)
        self._serve = serve
        self.publish(self.build(artifact))

    def build(self, artifact: Artifact, documents: list[Document] = DOCUMENTS) -> Build:
        encoder = Encoder(keep_artifact(self.settings, artifact), threads=1)
        return build_index(self.engine, encoder, documents, BuildOptions(fields={"metadata.lang": "keyword"}))

    def publish(self, build: Build) -> Build:
        return publish(self.settings, self.engine, build)

    @asynccontextmanager
    async def service(self, **changes: object) -> AsyncIterator[httpx.AsyncClient]:
        given = {"data": self.settings.data, "writable": True, "switch_s": 0.05} | changes
        async with self._serve(**given) as client:
            yield client


@pytest.fixture
def site(tmp_path: Path, tiny_artifact: Artifact, serve: Serve) -> Site:
    return Site(tmp_path, tiny_artifact, serve)


async def found(client: httpx.AsyncClient, query: str = "the king", **body: Any) -> dict[str, str]:
    answer = (await client.post("/v1/search", json={"query": query, "limit": 100, **body})).json()
    return {result["id"]: result["text"] for result in answer["results"]}


async def served(client: httpx.AsyncClient, build: Build) -> None:
    async with asyncio.timeout(60):
        while (await client.get("/readyz")).json()["build"] != build.id:
            await asyncio.sleep(0.01)


async def test_a_document_is_found_once_it_is_acknowledged_and_gone_once_its_deletion_is(site: Site) -> None:
    body = {"title": "Cats", "text": "a cat and a horse", "url": "https://x.test/c", "metadata": {"lang": "fr", "n": 1}}
    async with site.service() as client:
        created = await client.put("/v1/documents/pets/cat 1?index=default", json=body)
        assert (created.status_code, created.json()["id"], created.json()["journal"]) == (201, "pets/cat 1", 1)
        french = {"must": [{"key": "metadata.lang", "match": {"value": "fr"}}]}
        assert await found(client, "cat", filter=french) == {"pets/cat 1": "a cat and a horse"}
        read = (await client.get("/v1/documents/pets/cat 1")).json()
        assert {name: read[name] for name in body} == body
        replaced = await client.put("/v1/documents/pets/cat 1", json={"text": "a dog"})
        assert (replaced.status_code, replaced.json()["journal"]) == (200, 2)
        assert await found(client, "cat", filter=french) == {}
        assert (await found(client, "dog"))["pets/cat 1"] == "a dog"
        deleted = await client.delete("/v1/documents/pets/cat 1")
        assert (deleted.status_code, deleted.json()["journal"]) == (200, 3)
        assert "pets/cat 1" not in await found(client, "dog")
        for gone in (await client.get("/v1/documents/pets/cat 1"), await client.delete("/v1/documents/pets/cat 1")):
            assert (gone.status_code, gone.json()["type"]) == (404, "urn:dupmae:document-not-found")
        metrics = (await client.get("/metrics")).text
    assert 'dupmae_writes_total{index="default",kind="put"} 2.0' in metrics
    assert 'dupmae_writes_total{index="default",kind="delete"} 1.0' in metrics


async def test_a_service_that_is_not_the_writer_reads_documents_and_refuses_to_write_them(site: Site) -> None:
    async with site.service(writable=False) as client:
        assert (await client.get("/v1/documents/king")).json()["title"] == "The king"
        for refused in (
            await client.put("/v1/documents/king", json={"text": "a dog"}),
            await client.delete("/v1/documents/king"),
        ):
            assert (refused.status_code, refused.json()["type"]) == (403, "urn:dupmae:not-writable")
            assert "DUPMAE_WRITABLE=true" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("{}", "title and text are both empty"),
        ('{"text": "a dog", "colour": "red"}', "colour"),
        ('{"text": "a dog", "metadata": {"n": NaN}}', "not JSON compliant"),
        ('{"text": "a dog", "metadata": {"n": 1e999}}', "not JSON compliant"),
        ('{"text": "a dog", "metadata": {"n": [9223372036854775808]}}', "does not fit into 64 bits"),
        ('{"text": "a dog", "metadata": ' + '{"in": ' * 65 + "0" + "}" * 66, "metadata is nested more than 64 deep"),
        ('{"text": "\\ud800"}', "surrogates"),
        ('{"text": "\\u200b"}', "no word"),
        ('{"text": 5}', "text"),
    ],
)
async def test_what_cannot_be_stored_is_refused_by_name_and_not_in_the_journal(
    site: Site, body: str, reason: str
) -> None:
    async with site.service() as client:
        headers = {"content-type": "application/json"}
        refused = await client.put("/v1/documents/x", content=body, headers=headers)
    assert refused.status_code == 422
    assert reason in refused.json()["detail"]
    assert site.engine.journal("default").position() == 0


async def test_writes_at_the_same_time_are_all_kept_and_the_last_of_each_document_answers(site: Site) -> None:
    async with site.service() as client:
        puts = [client.put(f"/v1/documents/{n % 5}", json={"text": f"the king {n}"}) for n in range(25)]
        answers = await asyncio.gather(*puts)
        last = {answer.json()["id"]: answer.json()["journal"] for answer in answers}
        assert sorted(answer.json()["journal"] for answer in answers) == list(range(1, 26))
        texts = await found(client)
    writes = dict(site.engine.journal("default").since(0))
    for id in map(str, range(5)):
        newest = max(position for position, write in writes.items() if write.document_id == id)
        document = writes[newest].document
        assert document is not None
        assert texts[id] == document.text
    assert len(last) == 5


async def test_a_build_whose_position_nobody_saved_is_brought_up_to_date_when_it_is_opened(site: Site) -> None:
    async with site.service(switch_s=3600) as client:
        await client.put("/v1/documents/new", json={"text": "a dog"})
        await client.delete("/v1/documents/king")
        held = site.engine.published("default")
        assert held.journal == 0
    site.engine.save(held)  # as if nobody had come to save how far it had read
    async with site.service() as client:
        texts = await found(client)
        assert texts["new"] == "a dog"
        assert "king" not in texts
        documents = (await client.post("/v1/search", json={"query": "king"})).json()["meta"]["index"]["documents"]
    facts = site.engine.published("default")
    assert (facts.journal, facts.documents, facts.passages, documents) == (2, len(DOCUMENTS), len(DOCUMENTS), 6)


async def test_live_writes_outlive_a_rebuild_a_change_of_model_and_a_rollback(
    site: Site, tiny_artifact: Artifact, tiny_artifact_fp16: Artifact
) -> None:
    first = site.engine.published("default")
    async with site.service() as client:
        await client.put("/v1/documents/new", json={"text": "a dog"})
        await client.delete("/v1/documents/king")
        second = site.build(tiny_artifact_fp16)
        await client.put("/v1/documents/newer", json={"text": "a cat"})
        site.engine.publish(second)  # nobody has replayed
        await client.put("/v1/documents/sea", json={"text": "a ship"})
        await served(client, second)
        texts = await found(client)
        assert {"new", "newer"} <= texts.keys()
        assert texts["sea"] == "a ship"
        assert "king" not in texts
        await client.delete("/v1/documents/newer")
        back = await asyncio.to_thread(rollback, site.settings, site.engine, "default")  # it waits for the service
        assert back.id == first.id
        await client.put("/v1/documents/newest", json={"text": "a horse"})
        await served(client, first)
        texts = await found(client)
    assert texts.keys() == {"new", "newest", *(document.id for document in DOCUMENTS)} - {"king"}
    assert texts["sea"] == "a ship"
    assert site.engine.published("default").journal == 6


async def test_publishing_without_a_service_replays(site: Site, tiny_artifact: Artifact) -> None:
    async with site.service() as client:
        await client.put("/v1/documents/new", json={"text": "a dog"})
    second = site.publish(site.build(tiny_artifact))
    assert (second.journal, second.documents) == (1, len(DOCUMENTS) + 1)
    async with site.service(writable=False) as client:
        assert "new" in await found(client)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
async def test_on_a_server_a_build_that_takes_over_has_the_writes_that_came_after_it_was_published(
    site: Site, serve: Serve, tiny_artifact: Artifact
) -> None:
    engine = QdrantEngine(QdrantClient(":memory:"))
    site.engine = engine  # the artifacts stay where they are
    site.publish(site.build(tiny_artifact))
    changes = {"data": site.settings.data, "writable": True, "switch_s": 0.05, "threads": 1}
    async with serve(lambda: Searchers(engine, site.settings), **changes) as client:
        assert (await client.put("/v1/documents/new", json={"text": "a dog"})).status_code == 201
        second = site.build(tiny_artifact)
        engine.publish(second)  # nobody has replayed
        assert (await client.delete("/v1/documents/king")).status_code == 200
        await served(client, second)
        texts = await found(client)
        assert texts["new"] == "a dog"
        assert "king" not in texts
        facts = next(build for build in engine.builds("default") if build.id == second.id)
    assert (facts.journal, facts.documents) == (2, len(DOCUMENTS))


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
async def test_a_service_whose_build_was_deleted_on_the_server_says_so_and_closes_everything(
    site: Site, serve: Serve, tiny_artifact: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    engine = QdrantEngine(QdrantClient(":memory:"))
    site.engine = engine  # the artifacts stay where they are
    first = site.publish(site.build(tiny_artifact))
    changes = {"data": site.settings.data, "writable": True, "switch_s": 3600, "threads": 1}
    async with serve(lambda: Searchers(engine, site.settings), **changes) as client:
        assert (await client.put("/v1/documents/new", json={"text": "a dog"})).status_code == 201
        site.publish(site.build(tiny_artifact))
        engine.drop(first)
    assert f"Build {first.id} of index default was deleted while it was open" in caplog.text
    with pytest.raises(RuntimeError, match="closed"):
        engine.indexes()
