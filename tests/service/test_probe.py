"""The probe measures what callers would find, follows what is published, and is noticed by nobody.

A round of twenty queries takes a fifth of a second here. Nothing waits for a time: a test goes on when the metrics say
what it waits for.
"""

import asyncio
import logging
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact
from indexer.documents import Document
from indexer.edge import EdgeEngine
from indexer.judgement import Opened, judge
from indexer.known_items import known_items
from indexer.probe_set import Figures, ProbeSet
from indexer.release import ReleaseOptions, release
from indexer.store import Build, Engine
from model.artifact import Artifact
from model.encoder import Encoder
from model.vector import FusedVector
from service.app import create_app
from service.aside import Aside
from service.cursors import Cursors
from service.metrics import Metrics
from service.probe import Prober
from service.searcher import open_searchers
from service.serving import Serving
from service.settings import Settings
from tests.indexer.collection import random_documents
from tests.service.qdrant_server import qdrant_server

pytestmark = pytest.mark.anyio

DOCUMENTS = random_documents(20)
ROUND_S = 0.2

Values = Mapping[tuple[str, ...], float]


def released(engine: Engine, settings: Settings, encoder: Encoder, documents: list[Document]) -> Build:
    """A build that went through the gate, and is published."""
    build = build_index(engine, encoder, documents, BuildOptions())
    return release(engine, settings, build, ReleaseOptions(judged=None)).build


@pytest.fixture(scope="module")
def encoder(reading_artifact: Artifact) -> Encoder:
    return Encoder(reading_artifact, threads=1)


@pytest.fixture(scope="module")
def original(reading_artifact: Artifact, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one published build; a test that changes it takes a copy."""
    settings = Settings(data=tmp_path_factory.mktemp("probed"))
    keep_artifact(settings, reading_artifact)
    with closing(EdgeEngine(settings.data)) as engine:
        released(engine, settings, encoder, DOCUMENTS)
    return settings.data


@pytest.fixture
def changeable(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "data"))


@asynccontextmanager
async def serving(data: Path, **changes: object) -> AsyncIterator[tuple[httpx.AsyncClient, FastAPI]]:
    told = {"data": data, "threads": 1, "probe_s": ROUND_S, "switch_s": 0.05} | changes
    settings = Settings().model_copy(update=told)
    app = create_app(lambda: open_searchers(settings), settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://dupmae.test") as client,
    ):
        assert (await client.get("/readyz")).status_code == 200
        yield client, app


async def values(client: httpx.AsyncClient) -> Values:
    """The samples by name and values of labels, those in the order of their names and without the index's."""
    families = text_string_to_metric_families((await client.get("/metrics")).text)
    samples = [sample for family in families for sample in family.samples]
    return {
        (
            each.name.removeprefix("dupmae_"),
            *(value for label, value in sorted(each.labels.items()) if label != "index"),
        ): each.value
        for each in samples
    }


async def until(client: httpx.AsyncClient, seen: Callable[[Values], bool]) -> Values:
    async with asyncio.timeout(60):
        while not seen(found := await values(client)):
            await asyncio.sleep(0.01)
    return found


def rounds(outcome: str, at_least: float = 1) -> Callable[[Values], bool]:
    return lambda found: found.get(("probe_rounds_total", outcome), 0) >= at_least


def figures(found: Values) -> list[float]:
    return [found["probe_figure", measure] for measure in Figures._fields]


def own(probe: ProbeSet | None) -> list[float]:
    assert probe
    return [each.mean for each in probe.own.values()]


def published(data: Path) -> Build:
    with closing(EdgeEngine(data)) as engine:
        return engine.published("default")


async def test_a_round_finds_what_the_gate_found_and_what_the_build_says_of_itself(
    original: Path, encoder: Encoder
) -> None:
    async with serving(original) as (client, _):
        found = await until(client, rounds("complete"))
    build = published(original)
    assert figures(found) == pytest.approx(own(build.probe))
    with closing(EdgeEngine(original)) as engine, closing(engine.open("default")) as store:
        opened = Opened(store, encoder)
        judged = judge(opened, opened, known_items(store, store)).candidate["nDCG@10"]
    assert found["probe_figure", "ndcg_at_10"] == pytest.approx(judged.mean)
    assert found["probe_own_figure", "mean", "ndcg_at_10"] == pytest.approx(judged.mean)
    assert 0 < found["probe_own_figure", "low", "ndcg_at_10"] <= judged.low
    assert found["probe_queries",] == len(DOCUMENTS)
    assert found["probe_interval_seconds",] == ROUND_S
    assert found["probe_completed_timestamp_seconds",] >= found["probe_started_timestamp_seconds",]


async def test_nothing_of_it_is_in_what_callers_are_measured_by_nor_remembered(original: Path) -> None:
    async with serving(original) as (client, _):
        before = await until(client, rounds("complete"))
        ours = {name for name in before if name[0].startswith(("probe_", "build_", "ready", "data_", "queue_limit"))}
        ours |= {name for name in before if name[0] in {"switch_failed", "store_away"} or name[0].endswith("_created")}
        assert {name: value for name, value in before.items() if name not in ours and value} == {}
        probe = published(original).probe
        assert probe
        assert (await client.post("/v1/search", json={"query": probe.queries[0].text})).status_code == 200
        after = await values(client)
    assert after["cache_total", "vectors", "miss"] == after["cache_total", "answers", "miss"] == 1
    assert after["stage_seconds_count", "retrieve"] == after["query_tokens_count",] == 1
    assert after["search_requests_total", "fused", "200"] == 1


async def test_documents_that_are_deleted_live_make_it_fall_below_the_interval(changeable: Path) -> None:
    async with serving(changeable, writable=True) as (client, _):
        whole = await until(client, rounds("complete"))
        for document in DOCUMENTS[2:]:
            assert (await client.delete(f"/v1/documents/{document.id}")).is_success
        fallen = await until(client, lambda found: found["probe_figure", "recall_at_10"] <= 0.1)
    own_low = fallen["probe_own_figure", "low", "ndcg_at_10"]
    assert fallen["probe_figure", "ndcg_at_10"] < own_low < whole["probe_figure", "ndcg_at_10"]


def damage(data: Path, change: Callable[[list[FusedVector]], list[FusedVector]]) -> None:
    """Store other vectors than the model made."""
    with closing(EdgeEngine(data)) as engine, closing(engine.open("default", write=True)) as store:
        points = list(store.scroll())
        vectors = change([point.vector for point in points])
        store.upsert([replace(point, vector=vector) for point, vector in zip(points, vectors, strict=True)])
        store.flush()


def with_words_of_another(vectors: list[FusedVector]) -> list[FusedVector]:
    others = vectors[1:] + vectors[:1]
    return [
        replace(vector, ot_indices=other.ot_indices, ot_values=other.ot_values)
        for vector, other in zip(vectors, others, strict=True)
    ]


def without_cls(vectors: list[FusedVector]) -> list[FusedVector]:
    return [replace(vector, cls=np.zeros_like(vector.cls)) for vector in vectors]


async def test_words_that_are_mixed_up_in_the_index_make_it_fall(changeable: Path) -> None:
    damage(changeable, with_words_of_another)
    async with serving(changeable) as (client, _):
        found = await until(client, rounds("complete"))
    assert found["probe_figure", "ndcg_at_10"] < found["probe_own_figure", "low", "ndcg_at_10"]


async def test_the_loss_of_the_other_side_shows_in_the_balance(changeable: Path) -> None:
    damage(changeable, without_cls)
    async with serving(changeable) as (client, _):
        found = await until(client, rounds("complete"))
    assert found["probe_figure", "ot_share"] == 1 > found["probe_own_figure", "high", "ot_share"]


async def test_it_follows_what_is_published_and_never_mixes_two_builds(
    original: Path, changeable: Path, encoder: Encoder
) -> None:
    async with serving(changeable) as (client, _):
        await until(client, rounds("complete"))
        with closing(EdgeEngine(changeable)) as engine:
            other = released(engine, Settings(data=changeable, threads=1), encoder, random_documents(30))
        seen: list[list[float]] = []

        def measured(found: Values) -> bool:
            if found["probe_queries",] == 30 and ("probe_figure", "ndcg_at_10") in found:
                seen.append(figures(found))
            return len(seen) > 2

        await until(client, measured)
    assert own(other.probe) != pytest.approx(own(published(original).probe))
    assert all(each == pytest.approx(own(other.probe)) for each in seen)


async def test_it_stands_back_as_long_as_callers_are_served_and_then_goes_on(original: Path) -> None:
    gate = threading.Event()
    async with serving(original) as (client, app), app.state.serving.desk("default") as desk:
        served = asyncio.create_task(desk.run(gate.wait, 60))
        before = (await until(client, rounds("busy"))).get(("probe_rounds_total", "complete"), 0)
        assert (await until(client, rounds("busy", 3)))["probe_rounds_total", "complete"] == before
        gate.set()
        await served
        await until(client, rounds("complete", before + 1))


async def test_its_search_takes_no_place_from_a_caller(original: Path) -> None:
    gate = threading.Event()
    few = {"probe_s": 0, "store_threads": 1, "max_queue": 1}
    async with serving(original, **few) as (client, app):
        aside = Aside(app.state.serving, lambda: False)
        async with aside.desk("default") as beside:
            probing = asyncio.create_task(beside.run(gate.wait, 60))
            await asyncio.sleep(0)
            answer = await client.post("/v1/search", json={"query": "the king"})
            assert not probing.done()
            gate.set()
            assert await probing
        aside.close()
    assert answer.status_code == 200


async def test_it_asks_nothing_once_the_service_is_about_to_end(original: Path) -> None:
    async with serving(original) as (client, app):
        await until(client, rounds("complete"))
        app.state.draining = True
        complete = (await until(client, rounds("busy")))["probe_rounds_total", "complete"]
        assert (await until(client, rounds("busy", 2)))["probe_rounds_total", "complete"] == complete


async def test_an_index_that_opens_while_the_service_ends_is_not_probed(original: Path) -> None:
    settings, metrics = Settings(data=original), Metrics()
    serving = Serving(lambda: open_searchers(settings), settings, metrics, on_open=lambda build: None)
    prober = Prober(serving, settings, metrics, Cursors(b"secret"), leaving=lambda: False)
    await prober.close()
    tasks = asyncio.all_tasks()
    prober.begin("default")
    assert asyncio.all_tasks() == tasks


async def test_it_can_be_off(original: Path) -> None:
    async with serving(original, probe_s=0) as (client, _):
        assert (await client.post("/v1/search", json={"query": "the king"})).status_code == 200
        found = await values(client)
    assert {name[0]: value for name, value in found.items() if name[0].startswith("probe_")} == {
        "probe_interval_seconds": 0
    }


async def test_a_build_that_keeps_nothing_to_ask_is_said_once_and_has_no_figure(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "dupmae.probe"):
        async with serving(data, probe_s=0.001) as (client, _):
            found = await until(client, lambda found: ("probe_queries",) in found)
            for _ in range(5):
                await client.post("/v1/search", json={"query": "the king"})
    assert found["probe_queries",] == 0
    assert not {"probe_figure", "probe_own_figure", "probe_started_timestamp_seconds"} & {name[0] for name in found}
    (said,) = [record.message for record in caplog.records if record.name == "dupmae.probe"]
    assert "keeps no queries, so its quality is not probed" in said


@pytest.fixture(scope="module")
def on_a_server(reading_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A data folder with the model alone."""
    settings = Settings(data=tmp_path_factory.mktemp("models"))
    keep_artifact(settings, reading_artifact)
    return settings


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
async def test_a_store_that_fails_fails_the_round_and_nothing_else(
    on_a_server: Settings, encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(qdrant_server())
        build = released(server.engine, on_a_server, encoder, DOCUMENTS[:6])
        async with serving(on_a_server.data, qdrant_url=server.url) as (client, _):
            assert figures(await until(client, rounds("complete"))) == pytest.approx(own(build.probe))
            server.breaks("error")
            failed = await until(client, rounds("failed", 2))
            assert figures(failed) == pytest.approx(own(build.probe)), "that of the last whole round"
            assert (await client.get("/livez")).status_code == 200
            server.mends()
            whole = failed["probe_rounds_total", "complete"] + 1
            await until(client, rounds("complete", whole))
            assert (await client.post("/v1/search", json={"query": "the king"})).status_code == 200
    said = [record.message for record in caplog.records if record.name == "dupmae.probe"]
    assert len(said) == len(set(said))
    assert "a round of the quality probe failed" in said[0]
