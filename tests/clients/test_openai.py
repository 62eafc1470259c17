"""OpenAI's own client against our service: the vectors are the encoder's, the errors are its exceptions."""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest

from model.encoder import Encoder
from tests.clients.conftest import Serve

TEXTS = ["How to compress a file.", "the speed of sound in air"]


def connect(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with connect(address) as client:
        yield client


def cls_of(encoder: Encoder, texts: list[str], role: str = "document") -> np.ndarray:
    encodings = encoder.encode_queries(texts) if role == "query" else encoder.encode_documents(texts)
    return np.stack([encoding.vector.cls for encoding in encodings])


@pytest.mark.parametrize("name", ["tiny", "tiny:document", "tiny:query"])
def test_the_vectors_are_the_encoders_in_the_role_of_the_name(
    client: openai.OpenAI, tiny_encoder: Encoder, name: str
) -> None:
    given = client.embeddings.create(model=name, input=TEXTS)  # base64, which the client asks for by itself
    expected = cls_of(tiny_encoder, TEXTS, role=name.partition(":")[2])
    np.testing.assert_allclose([each.embedding for each in given.data], expected, atol=1e-5)
    assert [each.index for each in given.data] == [0, 1]
    assert given.model == name
    tokens = sum(encoding.tokens for encoding in tiny_encoder.encode_documents(TEXTS))
    assert given.usage.prompt_tokens == given.usage.total_tokens == tokens


def test_floats_and_base64_hold_the_same_numbers(client: openai.OpenAI) -> None:
    [plain] = client.embeddings.create(model="tiny", input=TEXTS[0], encoding_format="float").data
    [packed] = client.embeddings.create(model="tiny", input=TEXTS[0], encoding_format="base64").data
    assert isinstance(packed.embedding, str)
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(packed.embedding), "<f4"), np.float32(plain.embedding))


@pytest.mark.anyio
async def test_the_async_client_gets_the_same(address: str, client: openai.OpenAI) -> None:
    expected = client.embeddings.create(model="tiny", input=TEXTS)
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="unused") as asking:
        assert (await asking.embeddings.create(model="tiny", input=TEXTS)).data == expected.data


def test_length_is_as_trained_unless_it_is_asked_to_be_one(client: openai.OpenAI) -> None:
    [raw] = client.embeddings.create(model="tiny", input=TEXTS[0]).data
    [unit] = client.embeddings.create(model="tiny", input=TEXTS[0], extra_body={"normalize": True}).data
    assert np.linalg.norm(raw.embedding) != pytest.approx(1, abs=1e-3)
    assert np.linalg.norm(unit.embedding) == pytest.approx(1)
    np.testing.assert_allclose(unit.embedding, np.array(raw.embedding) / np.linalg.norm(raw.embedding), atol=1e-6)


def test_a_text_that_is_too_long_is_refused_and_cut_only_on_demand(
    client: openai.OpenAI, tiny_encoder: Encoder
) -> None:
    texts = ["file", "sound " * 100]
    with pytest.raises(
        openai.UnprocessableEntityError, match=r"input\.1: 100 tokens, and the model reads 62"
    ) as refused:
        client.embeddings.create(model="tiny", input=texts)
    assert refused.value.param == "input.1"
    given = client.embeddings.create(model="tiny", input=texts, extra_body={"truncate": True})
    np.testing.assert_allclose([each.embedding for each in given.data], cls_of(tiny_encoder, texts), atol=1e-5)
    assert given.usage.prompt_tokens == 1 + 62


def test_a_width_is_the_models_own_or_refused(client: openai.OpenAI) -> None:
    [given] = client.embeddings.create(model="tiny", input="file", dimensions=16).data
    assert len(given.embedding) == 16
    with pytest.raises(openai.UnprocessableEntityError, match="gives 16 and was not trained to be cut to 8"):
        client.embeddings.create(model="tiny", input="file", dimensions=8)


def test_token_ids_are_refused_with_what_to_send_instead(client: openai.OpenAI) -> None:
    given: list[Any] = [[1, 2, 3], [[1, 2], [3]]]
    for ids in given:
        with pytest.raises(openai.UnprocessableEntityError, match=r"input: .*send text") as refused:
            client.embeddings.create(model="tiny", input=ids)
        assert refused.value.code == "invalid-request"


@pytest.mark.parametrize("input", [[], "", ["file", ""], ["file", None], {"text": "file"}, 7])
def test_what_is_no_text_is_an_exception_that_names_the_field(client: openai.OpenAI, input: Any) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.embeddings.create(model="tiny", input=input)
    assert str(refused.value.param).startswith("input")
    assert refused.value.type == "invalid_request_error"
    assert refused.value.request_id


def test_too_many_texts_are_refused_with_the_bound(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="257 texts; at most 256"):
        client.embeddings.create(model="tiny", input=["file"] * 257)


def test_as_many_texts_as_are_allowed_come_back_in_order(client: openai.OpenAI) -> None:
    words = ["file", "sound", "king", "sea"]
    given = client.embeddings.create(model="tiny", input=words * 64).data
    firsts = [each.embedding for each in given[:4]]
    for position, each in enumerate(given):
        np.testing.assert_allclose(each.embedding, firsts[position % 4], atol=1e-5)


def test_another_model_is_not_found_and_the_error_names_those_there_are(client: openai.OpenAI) -> None:
    for name in ["text-embedding-3-small", "tiny:passage", "tiny:", ""]:
        with pytest.raises(openai.NotFoundError, match="tiny, tiny:document, tiny:query") as refused:
            client.embeddings.create(model=name, input="file")
        assert refused.value.code == "model-not-found"
        assert refused.value.status_code == 404


def test_models_are_listed_and_looked_up(client: openai.OpenAI) -> None:
    listed = client.models.list().data
    assert [model.id for model in listed] == ["tiny", "tiny:document", "tiny:query"]
    assert client.models.retrieve("tiny:query") == listed[2]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt")


def test_a_full_queue_is_a_rate_limit_and_a_passed_deadline_an_internal_error(serve: Serve) -> None:
    with serve(max_queue=1) as address, connect(address) as asking:
        with pytest.raises(openai.RateLimitError) as refused:
            asking.embeddings.create(model="tiny", input=["file"] * 32)
        assert refused.value.type == "rate_limit_error"
        assert refused.value.response.headers["Retry-After"] == "1"
        assert asking.embeddings.create(model="tiny", input="file").data
    with serve(timeout_ms=1) as address, connect(address) as asking:
        with pytest.raises(openai.InternalServerError) as failed:
            asking.embeddings.create(model="tiny", input=["file " * 50] * 256)
        assert failed.value.code == "deadline-exceeded"
