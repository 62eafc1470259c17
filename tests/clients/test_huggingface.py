"""huggingface_hub's client against our service, as if it were text-embeddings-inference, and the routes it lacks."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient, close_session
from huggingface_hub.errors import HfHubHTTPError

from model.encoder import Encoder

TEXTS = ["How to compress a file.", "the speed of sound in air"]


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[InferenceClient]:
    yield InferenceClient(model=address, token="unused")
    close_session()


@pytest.fixture(scope="module")
def http(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address) as client:
        yield client


def refusal(response: httpx.Response, status: int, kind: str) -> str:
    """The text of an error that has the shape of that server."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Request-ID"]
    body: dict[str, str] = response.json()
    assert body.keys() == {"error", "error_type"}
    assert body["error_type"] == kind
    return body["error"]


def test_features_are_the_raw_vectors_of_documents(client: InferenceClient, tiny_encoder: Encoder) -> None:
    expected = np.stack([encoding.vector.cls for encoding in tiny_encoder.encode_documents(TEXTS)])
    np.testing.assert_allclose(client.feature_extraction(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(client.feature_extraction(TEXTS[0]), expected[:1], atol=1e-5)


def test_a_prompt_name_is_the_role_and_normalize_is_done_when_it_is_set(
    client: InferenceClient, address: str, tiny_encoder: Encoder
) -> None:
    [query] = tiny_encoder.encode_queries(TEXTS[:1])
    given = client.feature_extraction(TEXTS[0], prompt_name="query", normalize=True, model=f"{address}/embed")
    expected = query.vector.cls / np.linalg.norm(query.vector.cls)
    np.testing.assert_allclose(given, expected[None], atol=1e-5)
    raw = client.feature_extraction(TEXTS[0], prompt_name="query", normalize=False)
    np.testing.assert_allclose(raw, query.vector.cls[None], atol=1e-5)


def test_too_long_a_text_is_refused_unless_it_may_be_cut(client: InferenceClient, tiny_encoder: Encoder) -> None:
    long = "sound " * 100
    for truncate in (None, False):
        with pytest.raises(HfHubHTTPError, match=r"inputs\.0: 100 tokens, and the model reads 62") as refused:
            client.feature_extraction(long, truncate=truncate)
        assert refused.value.response.status_code == 422
    [encoding] = tiny_encoder.encode_documents([long])
    np.testing.assert_allclose(client.feature_extraction(long, truncate=True), encoding.vector.cls[None], atol=1e-5)
    with pytest.raises(HfHubHTTPError, match="truncation_direction"):
        client.feature_extraction(long, truncate=True, truncation_direction="left")


@pytest.mark.parametrize("role", ["query", "document"])
def test_sparse_vectors_are_the_bags_of_words(http: httpx.Client, tiny_encoder: Encoder, role: str) -> None:
    encode = tiny_encoder.encode_queries if role == "query" else tiny_encoder.encode_documents
    given = http.post("/embed_sparse", json={"inputs": TEXTS, "prompt_name": role}).json()
    for bag, encoding in zip(given, encode(TEXTS), strict=True):
        assert [each["index"] for each in bag] == encoding.vector.ot_indices.tolist()
        np.testing.assert_allclose([each["value"] for each in bag], encoding.vector.ot_values, atol=1e-5)


def test_tokens_come_with_their_place_in_the_text(http: httpx.Client, tiny_encoder: Encoder) -> None:
    text = "Ünknown-ish  files"
    [tokens] = http.post("/tokenize", json={"inputs": text}).json()
    assert [token["special"] for token in (tokens[0], tokens[-1])] == [True, True]
    assert tokens[0] == {"id": tokens[0]["id"], "text": "[CLS]", "special": True, "start": None, "stop": None}
    for token in tokens[1:-1]:
        assert token["text"] == text[token["start"] : token["stop"]]
    [bare] = http.post("/tokenize", json={"inputs": [text], "add_special_tokens": False}).json()
    assert [token["id"] for token in bare] == tiny_encoder.token_ids(text)


def test_info_says_what_is_served_and_health_nothing(http: httpx.Client, tiny_encoder: Encoder) -> None:
    info: dict[str, Any] = http.get("/info").json()
    manifest = tiny_encoder.artifact.manifest
    assert (info["model_id"], info["model_sha"]) == ("tiny", manifest.fingerprint)
    assert info["model_type"] == {"embedding": {"pooling": "cls"}}
    assert (info["max_input_length"], info["max_client_batch_size"]) == (manifest.max_document_tokens, 256)
    healthy = http.get("/health")
    assert (healthy.status_code, healthy.content) == (200, b"")


@pytest.mark.parametrize("path", ["/", "/embed", "/embed_sparse", "/tokenize"])
def test_bad_input_is_an_error_of_that_servers_shape(http: httpx.Client, path: str) -> None:
    wrong: list[dict[str, object]] = [
        {},
        {"inputs": []},
        {"inputs": [1, 2]},
        {"inputs": [[1], [2]]},
        {"inputs": "file", "colour": "red"},
        {"inputs": "file", "prompt_name": "passage"},
        {"inputs": ["file"] * 257},
    ]
    for body in wrong:
        assert refusal(http.post(path, json=body), 422, "Validation")
    json = {"Content-Type": "application/json"}
    assert "not JSON" in refusal(http.post(path, content=b"{", headers=json), 400, "Validation")
    assert refusal(http.post(path, content=b"{}"), 415, "Validation")
    assert refusal(http.post(path, content=b" " * 2**20, headers=json), 413, "Validation")


def test_a_text_without_a_word_is_named(http: httpx.Client) -> None:
    for path in ("/embed", "/embed_sparse"):
        assert refusal(http.post(path, json={"inputs": ["file", ""]}), 422, "Validation").startswith(
            "inputs.1: no word"
        )


def test_routes_that_are_not_there_are_not_found(http: httpx.Client) -> None:
    for path in ("/embed_all", "/rerank", "/predict"):
        assert http.post(path, json={"inputs": "file"}).status_code == 404
    assert refusal(http.get("/embed"), 405, "Validation")
