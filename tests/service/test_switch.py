"""A running app follows what is published, and keeps answering as before where it cannot."""

import asyncio
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact, models_folder
from indexer.documents import Document
from indexer.edge import EdgeEngine
from indexer.store import Build, BuildLocked
from model.artifact import Artifact
from model.encoder import Encoder
from service.metrics import Metrics
from service.searcher import Searchers
from service.serving import Serving
from service.settings import Settings
from service.switch import LONGEST_WAIT_S, Setbacks
from tests.service.conftest import Serve

pytestmark = pytest.mark.anyio

OLD, NEW = [[Document(f"{name}-{n}", text=f"the king of island {n}") for n in range(4)] for name in ("old", "new")]


class Site:
    """A data folder of one index, and the models its builds are made with."""

    def __init__(self, data: Path) -> None:
        self.settings = Settings(data=data)
        self.engine = EdgeEngine(data)

    def build(self, artifact: Artifact, documents: list[Document]) -> Build:
        encoder = Encoder(keep_artifact(self.settings, artifact), threads=1)
        return build_index(self.engine, encoder, documents, BuildOptions())

    def publish(self, build: Build) -> Build:
        self.engine.publish(build)
        return build


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.engine.close()


async def ask(client: httpx.AsyncClient) -> tuple[str, str, set[str]]:
    """Build, fingerprint and documents of one answer; the service is ready at that time."""
    assert (await client.get("/readyz")).status_code == 200
    response = await client.post("/v1/search", json={"query": "the king"})
    assert response.status_code == 200
    answer = response.json()
    ids = {result["id"].partition("-")[0] for result in answer["results"]}
    return answer["meta"]["index"]["build"], answer["meta"]["model"]["fingerprint"], ids


async def until(client: httpx.AsyncClient, seen: Callable[[str], bool]) -> str:
    """The metrics, once they look so; searches go on meanwhile."""
    async with asyncio.timeout(60):
        while not seen(text := (await client.get("/metrics")).text):
            await ask(client)
            await asyncio.sleep(0.01)  # a loop that never rests leaves the threads that open a build no time
    return text


def serves(build: Build) -> Callable[[str], bool]:
    info = f'dupmae_build_info{{build="{build.id}",fingerprint="{build.fingerprint}",index="default"}} 1.0'
    return lambda text: info in text


async def test_a_rebuild_a_change_of_model_and_a_rollback_are_taken_up_without_a_restart(
    serve: Serve, site: Site, tiny_artifact: Artifact, tiny_artifact_fp16: Artifact
) -> None:
    first = site.publish(site.build(tiny_artifact, OLD))
    async with serve(data=site.settings.data, switch_s=0.05) as client:
        assert await ask(client) == (first.id, tiny_artifact.fingerprint, {"old"})
        second = site.publish(site.build(tiny_artifact, NEW))
        await until(client, serves(second))
        assert await ask(client) == (second.id, tiny_artifact.fingerprint, {"new"})
        other = site.publish(site.build(tiny_artifact_fp16, OLD))
        await until(client, serves(other))
        assert await ask(client) == (other.id, tiny_artifact_fp16.fingerprint, {"old"})
        site.publish(first)
        text = await until(client, serves(first))
        assert await ask(client) == (first.id, tiny_artifact.fingerprint, {"old"})
    assert text.count("dupmae_build_info{") == 1
    assert 'dupmae_switch_failed{index="default"} 0.0' in text


async def test_a_build_that_cannot_be_loaded_leaves_the_old_one_serving_until_it_is_mended(
    serve: Serve,
    site: Site,
    tiny_artifact: Artifact,
    tiny_artifact_fp16: Artifact,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = site.publish(site.build(tiny_artifact, OLD))
    second = site.build(tiny_artifact_fp16, NEW)
    kept = models_folder(site.settings) / second.fingerprint
    kept.rename(aside := kept.with_name("aside"))
    async with serve(data=site.settings.data, switch_s=0.05) as client:
        await ask(client)
        site.publish(second)
        await until(client, lambda text: 'dupmae_switch_failed{index="default"} 1.0' in text)
        for _ in range(20):
            assert await ask(client) == (first.id, first.fingerprint, {"old"})
        shutil.copytree(aside, kept)
        text = await until(client, serves(second))
        assert await ask(client) == (second.id, second.fingerprint, {"new"})
    assert 'dupmae_switch_failed{index="default"} 0.0' in text
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(failures) == 1
    assert f"cannot follow build {second.id}" in failures[0].message
    assert "is not an artifact" in failures[0].message


async def test_a_folder_that_a_writer_holds_is_taken_up_when_the_writer_has_gone(
    serve: Serve, site: Site, tiny_artifact: Artifact
) -> None:
    first, second = site.publish(site.build(tiny_artifact, OLD)), site.build(tiny_artifact, NEW)
    writer = site.engine.open("default", second.id, write=True)
    async with serve(data=site.settings.data, switch_s=0.05) as client:
        await ask(client)
        site.publish(second)
        await until(client, lambda text: 'dupmae_switch_failed{index="default"} 1.0' in text)
        assert await ask(client) == (first.id, first.fingerprint, {"old"})
        writer.close()
        await until(client, serves(second))


async def test_the_build_that_was_served_is_released_and_the_one_that_is_served_is_not(
    serve: Serve, site: Site, tiny_artifact: Artifact
) -> None:
    first = site.publish(site.build(tiny_artifact, OLD))
    async with serve(data=site.settings.data, switch_s=0.05) as client:
        await ask(client)
        second = site.publish(site.build(tiny_artifact, NEW))
        await until(client, serves(second))
        async with asyncio.timeout(60):
            while first in site.engine.builds("default"):
                try:
                    site.engine.drop(first)
                except BuildLocked:
                    await ask(client)
                    await asyncio.sleep(0.01)
        with pytest.raises(BuildLocked):
            site.engine.open("default", second.id, write=True)


def test_searchers_of_one_model_share_an_encoder_which_goes_with_the_last_of_them(
    data: Path, site: Site, settings: Settings
) -> None:
    with Searchers(EdgeEngine(data), settings) as searchers:
        one, other = searchers.open("default"), searchers.open("letters")
        assert one.encoder is other.encoder
        searchers.release(one)
        assert searchers.open("default").encoder is other.encoder


def test_a_build_that_failed_is_tried_less_and_less_often_and_another_one_at_once() -> None:
    setbacks, now, waits = Setbacks(2.0), 0.0, []
    for _ in range(7):
        assert setbacks.due("notes", "b2", now)
        setbacks.failed("notes", "b2", "locked", now)
        began = now
        while not setbacks.due("notes", "b2", now):
            now += 0.5
        waits.append(now - began)
    assert waits == [2, 4, 8, 16, LONGEST_WAIT_S, LONGEST_WAIT_S, LONGEST_WAIT_S]
    setbacks.failed("notes", "b2", "locked", now)
    assert setbacks.due("notes", "b3", now)
    setbacks.over("notes")
    assert setbacks.due("notes", "b2", now)


async def test_a_service_closes_whatever_broke_while_it_opened(
    settings: Settings,
) -> None:
    closing = threading.Event()

    def open_them() -> Searchers:
        closing.wait()
        raise RuntimeError("broken")

    serving = Serving(open_them, settings, Metrics(), on_open=lambda _: None)
    serving.start()
    closed = asyncio.create_task(serving.close())
    await asyncio.sleep(0)
    closing.set()
    await closed
