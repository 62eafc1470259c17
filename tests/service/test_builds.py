"""`/v1/indexes` and `/v1/builds`: seen, published and rolled back in a running service, or refused as it was."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from indexer.build import BuildOptions, build_index
from indexer.catalog import go_live, keep_artifact, models_folder
from indexer.documents import Document
from indexer.edge import EdgeEngine
from indexer.store import Build
from model.artifact import Artifact
from model.encoder import Encoder
from service.settings import Settings
from tests.service.conftest import Serve

pytestmark = pytest.mark.anyio

WORDS = "king queen horse dog cat ship sea island night morning file list word letter sound air".split()
OLD = [Document(f"d{n}", f"The {WORDS[n % 16]}", f"{WORDS[n // 4]} and {WORDS[n % 7]} {n}") for n in range(60)]
NEW = [*OLD, Document("extra", "Trees", "river tree mountain cloud rain snow")]


class Site:
    """A data folder of one index, whose builds are made with one small model."""

    def __init__(self, data: Path, artifact: Artifact) -> None:
        self.settings = Settings(data=data, threads=1)
        self.engine = EdgeEngine(data)
        self.encoder = Encoder(keep_artifact(self.settings, artifact), threads=1)

    def build(self, documents: list[Document]) -> Build:
        return build_index(self.engine, self.encoder, documents, BuildOptions(fields={"metadata.lang": "keyword"}))


@pytest.fixture
def site(tmp_path: Path, tiny_artifact: Artifact) -> Iterator[Site]:
    site = Site(tmp_path, tiny_artifact)
    yield site
    site.engine.close()


async def post(client: httpx.AsyncClient, path: str, **body: Any) -> httpx.Response:
    return await client.post(f"/v1/builds{path}", json=body)


async def served(client: httpx.AsyncClient) -> str:
    build: str = (await client.get("/readyz")).json()["build"]
    return build


async def test_a_build_is_listed_judged_published_rolled_back_and_served_when_the_answer_comes(
    serve: Serve, site: Site
) -> None:
    first = go_live(site.engine, site.build(OLD))
    second = site.build(NEW)
    async with serve(data=site.settings.data, writable=True, switch_s=3_600) as client:
        await client.put("/v1/documents/live", json={"text": "a bird at night"})
        listed = (await client.get("/v1/builds")).json()["builds"]
        assert [(one["id"], one["published"], one["served"]) for one in listed] == [
            (second.id, False, False),
            (first.id, True, True),
        ]
        assert [one["documents"] for one in listed] == [61, 61]
        assert not any(one["running"] for one in listed)
        (index,) = (await client.get("/v1/indexes")).json()["indexes"]
        assert (index["name"], index["build"], index["documents"]) == ("default", first.id, 61)
        assert index["fields"] == {
            "metadata.lang": "keyword",
            "doc_id": "keyword",
            "parent_id": "keyword",
            "chunk": "integer",
        }

        published = await post(client, f"/{second.id}:publish")
        assert published.status_code == 200, published.text
        facts = published.json()["build"]
        assert (facts["id"], facts["published"], facts["served"]) == (second.id, True, True)
        assert published.json()["note"] == ""
        assert any(metric.endswith("nDCG@10 change") for metric in facts["judged"])
        assert await served(client) == second.id
        for document in ("extra", "live"):
            assert (await client.get(f"/v1/documents/{document}")).json()["build"] == second.id

        async with asyncio.timeout(60):
            while (back := await post(client, ":rollback")).status_code == 409:
                assert back.json()["type"] == "urn:dupmae:build-locked"
                await asyncio.sleep(0.01)
        assert back.json()["build"]["id"] == first.id
        assert await served(client) == first.id
        again = await post(client, ":rollback")
        assert (again.status_code, again.json()["type"]) == (409, "urn:dupmae:no-earlier-build")
    assert site.engine.published("default").id == first.id
    assert len(site.engine.builds("default")) == 2


async def test_what_the_gate_refuses_changes_nothing_and_is_published_when_the_limits_are_moved(
    serve: Serve, site: Site
) -> None:
    first, small = go_live(site.engine, site.build(OLD)), site.build(OLD[:30])
    async with serve(data=site.settings.data, writable=True) as client:
        refused = await post(client, f"/{small.id}:publish")
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:dupmae:publication-blocked")
        assert "50% fewer" in refused.json()["detail"]
        assert await served(client) == first.id
        assert site.engine.published("default").id == first.id
        allowed = await post(client, f"/{small.id}:publish", max_shrink=0.9, tolerance=1.0)
        assert allowed.status_code == 200, allowed.text
        assert await served(client) == small.id


async def test_a_build_that_is_unfinished_locked_unknown_or_without_its_model_is_refused_by_name(
    serve: Serve, site: Site, tiny_artifact_fp16: Artifact
) -> None:
    first = go_live(site.engine, site.build(OLD))
    locked, unfinished = site.build(NEW), site.build(NEW)
    site.engine.save(unfinished.model_copy(update={"state": "encoding"}))
    other = Encoder(keep_artifact(site.settings, tiny_artifact_fp16), threads=1)
    lost = build_index(site.engine, other, OLD, BuildOptions())
    shutil.rmtree(models_folder(site.settings) / lost.fingerprint)
    writer = site.engine.open("default", locked.id, write=True)
    async with serve(data=site.settings.data, writable=True) as client:
        for build, status, name in (
            (unfinished.id, 409, "build-not-ready"),
            (locked.id, 409, "build-locked"),
            (lost.id, 409, "artifact-missing"),
            ("nobody", 404, "index-not-found"),
        ):
            for gate in (True, False):
                if build == locked.id and not gate:
                    continue
                refused = await post(client, f"/{build}:publish", gate=gate)
                assert (refused.status_code, refused.json()["type"]) == (status, f"urn:dupmae:{name}"), build
        assert await served(client) == first.id
        forced = await post(client, f"/{locked.id}:publish", gate=False)
        assert (forced.status_code, forced.json()["type"]) == (503, "urn:dupmae:switch-failed")
        assert f"goes on answering from build {first.id}" in forced.json()["detail"]
        assert await served(client) == first.id
        writer.close()
        mended = await post(client, f"/{locked.id}:publish", gate=False)
        assert mended.status_code == 200
        assert await served(client) == locked.id


async def test_the_first_build_of_an_index_is_published_into_a_service_that_waits_for_it(
    serve: Serve, site: Site
) -> None:
    build = site.build(OLD)
    async with serve(data=site.settings.data, writable=True) as client:
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/v1/indexes")).json() == {"indexes": []}
        published = await post(client, f"/{build.id}:publish")
        assert (published.status_code, published.json()["build"]["served"]) == (200, True)
        assert await served(client) == build.id
        missing = await client.get("/v1/builds?index=missing")
        assert (missing.status_code, missing.json()["type"]) == (404, "urn:dupmae:index-not-found")


async def test_one_release_at_a_time(serve: Serve, site: Site) -> None:
    go_live(site.engine, site.build(OLD))
    second = site.build(NEW)
    async with serve(data=site.settings.data, writable=True) as client:
        answers = await asyncio.gather(*(post(client, f"/{second.id}:publish") for _ in range(3)))
        assert await served(client) == second.id
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409]
    busy = next(answer for answer in answers if answer.status_code == 409)
    assert busy.json()["type"] == "urn:dupmae:release-under-way"


@pytest.mark.parametrize("changes", [{"writable": False}, {"writable": True, "host": "0.0.0.0", "anonymous": True}])
async def test_without_keys_only_a_writing_service_on_loopback_publishes(
    serve: Serve, site: Site, changes: dict[str, Any]
) -> None:
    build = go_live(site.engine, site.build(OLD))
    async with serve(data=site.settings.data, **changes) as client:
        for path in (f"/{build.id}:publish", ":rollback"):
            refused = await post(client, path)
            assert (refused.status_code, refused.json()["type"]) == (403, "urn:dupmae:not-administrable")
        assert (await client.get("/v1/builds")).status_code == 200


async def test_a_page_of_another_site_cannot_publish_through_a_browser(serve: Serve, site: Site) -> None:
    go_live(site.engine, site.build(OLD))
    async with serve(data=site.settings.data, writable=True) as client:
        simple = await client.post("/v1/builds:rollback", content=b"{}", headers={"content-type": "text/plain"})
    assert simple.status_code == 415
