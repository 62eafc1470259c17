"""What queries and their best results look like is counted once for each query, and says what the answer says."""

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.service.conftest import Serve

pytestmark = pytest.mark.anyio

WATCHED = ("dupmae_query_", "dupmae_top_")


async def counted(client: httpx.AsyncClient) -> dict[str, float]:
    families = text_string_to_metric_families((await client.get("/metrics")).text)
    samples = [sample for family in families for sample in family.samples if sample.name.startswith(WATCHED)]
    return {each.name.removeprefix("dupmae_"): each.value for each in samples if "le" not in each.labels}


async def ask(client: httpx.AsyncClient, **body: object) -> httpx.Response:
    answer = await client.post("/v1/search", json={"query": "the king 猫", "with": ["parts"]} | body)
    assert answer.status_code == 200
    return answer


async def test_a_query_is_seen_with_its_length_its_unknown_tokens_and_its_best_result(serve: Serve) -> None:
    async with serve() as client:
        answer = (await ask(client)).json()
        encoded = (await client.post("/v1/encode", json={"texts": ["the king 猫"], "role": "query"})).json()
        seen = await counted(client)
    best = answer["results"][0]
    cls, ot = max(best["parts"]["cls"], 0), max(best["parts"]["ot"], 0)
    assert seen["query_tokens_count"] == seen["query_terms_count"] == seen["top_score_count"] == 1
    assert seen["query_tokens_sum"] == answer["meta"]["query"]["tokens"]
    assert seen["query_unknown_tokens_total"] == 1
    assert seen["query_terms_sum"] == len(encoded["encodings"][0]["ot"]["indices"])
    assert seen["top_score_sum"] == pytest.approx(best["score"])
    assert seen["top_ot_share_sum"] == pytest.approx(ot / (cls + ot))


async def test_pages_remembered_answers_and_documents_as_queries_are_not_queries_of_people(serve: Serve) -> None:
    async with serve() as client:
        first = (await ask(client, limit=1)).json()
        await ask(client, limit=1)
        await ask(client, limit=1, cursor=first["next_cursor"])
        await client.post("/v1/documents/king:similar", json={})
        seen = await counted(client)
    assert seen["query_tokens_count"] == seen["top_score_count"] == 1


async def test_scores_of_other_modes_are_of_another_kind_and_are_left_out(serve: Serve) -> None:
    async with serve() as client:
        await ask(client, mode="ot")
        await ask(client, mode="rrf")
        seen = await counted(client)
    assert seen["query_tokens_count"] == 2
    assert "top_score_count" not in seen
