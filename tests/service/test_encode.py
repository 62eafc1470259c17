"""`POST /v1/encode`: the vectors that the index itself is made with."""

from typing import Any

import numpy as np
import pytest

from model.encoder import Encoder
from tests.service.conftest import Serve

pytestmark = pytest.mark.anyio

TEXTS = ["the king and the queen", "a ship at sea", "energy", "a ship at sea"]


@pytest.mark.parametrize("role", ["query", "document"])
async def test_both_vectors_are_those_of_the_encoder_in_the_order_of_the_texts(
    serve: Serve, tiny_encoder: Encoder, role: str
) -> None:
    encode = tiny_encoder.encode_queries if role == "query" else tiny_encoder.encode_documents
    async with serve() as client:
        answer = (await client.post("/v1/encode", json={"texts": TEXTS, "role": role})).json()
    assert (answer["role"], answer["model"]["fingerprint"]) == (role, tiny_encoder.fingerprint)
    for out, expected in zip(answer["encodings"], encode(TEXTS), strict=True):
        np.testing.assert_allclose(out["cls"], expected.vector.cls, atol=1e-5)
        np.testing.assert_allclose(out["ot"]["values"], expected.vector.ot_values, atol=1e-5)
        assert out["ot"]["indices"] == expected.vector.ot_indices.tolist()
        assert out["ot"]["entries"] == [tiny_encoder.vocabulary[index] for index in out["ot"]["indices"]]
        assert (out["tokens"], out["truncated"]) == (expected.tokens, expected.truncated)


async def test_a_text_that_is_cut_says_so(serve: Serve) -> None:
    async with serve() as client:
        answer = (await client.post("/v1/encode", json={"texts": ["king " * 100, "king"]})).json()
    assert [(one["tokens"], one["truncated"]) for one in answer["encodings"]] == [(100, True), (1, False)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"texts": []}, "texts"),
        ({"texts": ["x"] * 257}, "texts"),
        ({"texts": ["x", ""]}, "texts.1"),
        ({"texts": ["x", "y" * 16_385]}, "texts.1"),
        ({"texts": ["king", "\u200b"]}, "texts.1"),
        ({"texts": ["king", "\u200b"], "role": "query"}, "texts.1"),
        ({"texts": ["x"], "role": "passage"}, "role"),
        ({"texts": "x"}, "texts"),
    ],
)
async def test_what_cannot_be_encoded_is_refused_by_name(serve: Serve, body: dict[str, Any], field: str) -> None:
    async with serve() as client:
        refused = await client.post("/v1/encode", json=body)
    assert refused.status_code == 422
    assert [error["field"] for error in refused.json()["errors"]] == [field]


async def test_more_texts_than_may_wait_are_refused_and_leave_the_queue_as_it_was(serve: Serve) -> None:
    async with serve(max_queue=2) as client:
        refused = await client.post("/v1/encode", json={"texts": TEXTS})
        answered = await client.post("/v1/encode", json={"texts": TEXTS[:2]})
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:dupmae:queue-full")
    assert answered.status_code == 200
