"""Liveness, readiness and metrics."""

import re

import pytest

from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact, open_engine
from model.artifact import Artifact
from model.encoder import Encoder
from service.settings import Settings
from tests.service.conftest import DOCUMENTS, Serve

pytestmark = pytest.mark.anyio


async def test_ready_names_the_build_and_the_artifact(serve: Serve, tiny_encoder: Encoder) -> None:
    async with serve() as client:
        ready = await client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["fingerprint"] == tiny_encoder.fingerprint


async def test_without_an_index_the_service_lives_says_why_and_becomes_ready_when_it_is_built(
    serve: Serve, tiny_artifact: Artifact, tiny_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = Settings(data=tmp_path_factory.mktemp("empty"))
    async with serve(data=settings.data) as client:
        assert (await client.get("/livez")).status_code == 200
        unready = await client.get("/readyz")
        assert unready.status_code == 503
        assert "default" in unready.json()["detail"]
        assert unready.headers["Retry-After"]
        assert (await client.post("/v1/search", json={"query": "file"})).status_code == 503

        keep_artifact(settings, tiny_artifact)
        engine = open_engine(settings)
        engine.publish(build_index(engine, tiny_encoder, DOCUMENTS, BuildOptions()))
        engine.close()
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.post("/v1/search", json={"query": "file"})).status_code == 200


async def test_a_missing_artifact_is_a_reason_not_to_be_ready(
    serve: Serve, tiny_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = Settings(data=tmp_path_factory.mktemp("no-artifact"))
    engine = open_engine(settings)
    engine.publish(build_index(engine, tiny_encoder, DOCUMENTS, BuildOptions()))
    engine.close()
    async with serve(data=settings.data) as client:
        unready = await client.get("/readyz")
    assert unready.status_code == 503
    assert "is not an artifact" in unready.json()["detail"]


async def test_metrics_count_searches_by_mode_and_status(serve: Serve) -> None:
    async with serve() as client:
        await client.post("/v1/search", json={"query": "file"})
        await client.post("/v1/search", json={"query": "the king " * 100, "mode": "ot"})
        await client.post("/v1/search", json={"query": ""})
        text = (await client.get("/metrics")).text
    assert 'dupmae_search_requests_total{mode="fused",status="200"} 1.0' in text
    assert 'dupmae_search_requests_total{mode="ot",status="200"} 1.0' in text
    assert 'dupmae_search_requests_total{mode="invalid",status="422"} 1.0' in text
    assert 'dupmae_stage_seconds_count{stage="retrieve"} 2.0' in text
    assert "dupmae_truncated_queries_total 1.0" in text
    assert "dupmae_search_seconds_count 2.0" in text
    assert "dupmae_queue_depth 0.0" in text
    assert "dupmae_queue_limit 256.0" in text
    assert "dupmae_ready 1.0" in text
    assert 'dupmae_store_away{index="default"} 0.0' in text
    free, size = (re.search(rf"^dupmae_data_{what}_bytes (\S+)$", text, re.MULTILINE) for what in ("free", "size"))
    assert free
    assert size
    assert 0 < float(free[1]) < float(size[1])
    assert 'dupmae_build_info{build="' in text
    parts, taken = (
        re.search(rf'^dupmae_build_{what}{{index="default"}} (\S+)$', text, re.MULTILINE)
        for what in ("segments", "size_bytes")
    )
    assert parts
    assert taken
    assert float(parts[1]) >= 1
    assert 0 < float(taken[1]) < float(size[1])


async def test_two_apps_in_one_process_have_a_registry_each(serve: Serve) -> None:
    async with serve() as one, serve() as two:
        await one.post("/v1/search", json={"query": "file"})
        assert "dupmae_search_requests_total{" not in (await two.get("/metrics")).text
