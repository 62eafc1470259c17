"""The embedding routes where the service is at its limits; what their clients see otherwise is in `tests/clients`."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.encoder import Encoder
from service.batching import AT_ONCE
from tests.service.conftest import Serve

pytestmark = pytest.mark.anyio

OPENAI = {"model": "tiny", "input": "file"}


def fault(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error of OpenAI's shape."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert body.keys() == {"error"}
    error: dict[str, Any] = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code
    return error


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/embeddings", {"model": "tiny", "input": ["file"] * 256}), ("/v1/encode", {"texts": ["file"] * 256})],
)
async def test_a_long_list_leaves_room_in_the_queue(serve: Serve, path: str, body: dict[str, Any]) -> None:
    async with serve(max_queue=AT_ONCE + 1) as client:
        embedding = client.post(path, json=body)
        searching = client.post("/v1/search", json={"query": "file"})
        assert [answer.status_code for answer in await asyncio.gather(embedding, searching)] == [200, 200]


async def test_without_an_index_each_client_is_told_in_its_words_to_come_back(serve: Serve, tmp_path: Path) -> None:
    async with serve(data=tmp_path) as client:
        embeddings = await client.post("/v1/embeddings", json=OPENAI)
        assert fault(embeddings, 503, "not-ready")["type"] == "server_error"
        assert embeddings.headers["Retry-After"] == "1"
        fault(await client.get("/v1/models"), 503, "not-ready")
        for path in ("/health", "/info"):
            unwell = await client.get(path)
            assert (unwell.status_code, unwell.json()["error_type"]) == (503, "Unhealthy")
        assert (await client.get("/livez")).status_code == 200


async def test_an_error_of_ours_has_the_clients_shape_and_no_trace(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    async with serve() as client:
        await client.get("/readyz")
        monkeypatch.setattr(Encoder, "_run", broken)  # the runtime under it is foreign, and cannot be made to fail
        openai = await client.post("/v1/embeddings", json=OPENAI, headers={"X-Request-ID": "r-7"})
        tei = await client.post("/embed", json={"inputs": "file"})
    assert fault(openai, 500, "internal-error")["type"] == "server_error"
    assert openai.headers["X-Request-ID"] == "r-7"
    assert (tei.status_code, tei.json()["error_type"]) == (500, "Backend")
    assert "secret" not in openai.text + tei.text


async def test_texts_that_were_embedded_are_counted_by_role(serve: Serve) -> None:
    async with serve() as client:
        await client.post("/v1/embeddings", json={"model": "tiny:query", "input": ["file", "sound"]})
        await client.post("/embed_sparse", json={"inputs": "file"})
        metrics = (await client.get("/metrics")).text
    assert 'dupmae_embedded_texts_total{role="query"} 2.0' in metrics
    assert 'dupmae_embedded_texts_total{role="document"} 1.0' in metrics


async def test_errors_of_other_routes_stay_problems(serve: Serve) -> None:
    async with serve() as client:
        for path in ("/v1/search", "/v1/embeddings/x", "/embeds", "/v1/modelsx"):
            assert (await client.get(path)).headers["Content-Type"] == "application/problem+json"
