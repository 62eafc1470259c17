"""Our own client, blocking and async, against a real service: typed answers, problems as exceptions, patience."""

import operator
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact, open_engine
from model.artifact import Artifact
from model.encoder import Encoder
from service.calls import EncodeKeywords, ExplainKeywords
from service.client import AsyncClient, Client, NoAnswer, SearchKeywords, ServiceError
from service.explain_schemas import EncodeRequest, ExplainRequest
from service.schemas import DocumentIn, SearchOptions, SearchResponse
from service.settings import Settings
from tests.clients.conftest import HELD, served
from tests.service.conftest import DOCUMENTS

ENGLISH: dict[str, Any] = {"must": [{"key": "metadata.lang", "match": {"value": "en"}}]}


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


class Answers:
    """A service's answers in order, as a network would bring them; the foreign part, so made up."""

    def __init__(self, *answers: httpx.Response | httpx.TransportError) -> None:
        self._answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer

    def client(self, **options: Any) -> Client:
        return Client(transport=httpx.MockTransport(self), **options)

    def async_client(self, **options: Any) -> AsyncClient:
        return AsyncClient(transport=httpx.MockTransport(self), **options)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the blocking client would have slept; time is foreign and slow."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


@pytest.fixture
def found(client: Client) -> httpx.Response:
    return httpx.Response(200, content=client.search("file").model_dump_json())


def busy(status: int = 429, **headers: str) -> httpx.Response:
    body = {"type": "urn:dupmae:queue-full", "title": "Too Many", "status": status, "detail": "wait", "request_id": "r"}
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_an_answer_is_typed_and_takes_every_option(client: Client) -> None:
    answer = client.search("how to compress a file", limit=2, with_=["parts", "explain"], filter=ENGLISH, mode="fused")
    assert isinstance(answer, SearchResponse)
    assert {result.metadata["lang"] for result in answer.results} == {"en"}
    first = answer.results[0]
    assert first.parts is not None
    assert first.parts.cls + first.parts.ot == pytest.approx(first.score, abs=1e-4)
    assert first.explain is not None


def test_the_keywords_are_the_fields_of_a_search() -> None:
    assert set(SearchKeywords.__annotations__) == set(SearchOptions.model_fields)
    assert set(ExplainKeywords.__annotations__) == set(ExplainRequest.model_fields) - {"query"}
    assert set(EncodeKeywords.__annotations__) == set(EncodeRequest.model_fields) - {"texts"}


def test_pages_bring_every_document_once_in_the_order_of_one_long_page(client: Client) -> None:
    whole = client.search("file", limit=len(HELD))
    pages = list(client.pages("file", limit=4))
    assert [len(page.results) for page in pages] == [4, len(HELD) - 4]
    assert [result.id for page in pages for result in page.results] == [result.id for result in whole.results]


def test_each_query_of_a_batch_has_its_answer_or_its_error(client: Client) -> None:
    found, refused, other = client.batch(["file", " ", "the king"], limit=2)
    assert isinstance(refused, ServiceError)
    assert (refused.problem.status, refused.problem.type) == (422, "urn:dupmae:invalid-request")
    for query, answer in (("file", found), ("the king", other)):
        assert isinstance(answer, SearchResponse)
        assert answer.results == client.search(query, limit=2).results
    with pytest.raises(ServiceError, match="searches"):
        client.batch([])


def test_an_explanation_adds_up_to_the_score_that_a_search_gives(client: Client) -> None:
    first = client.search("file").results[0]
    why = client.explain("file", id=first.id, rank=True)
    assert (why.id, why.rank) == (first.id, 1)
    assert why.score == pytest.approx(first.score, abs=1e-9)
    assert sum(word.contribution for word in why.words) == pytest.approx(why.parts.ot, abs=1e-4)
    assert client.explain("file", text="Open a file.").id is None


def test_encoded_texts_have_the_score_of_a_search(client: Client) -> None:
    (query,) = client.encode(["file"], role="query").encodings
    held = client.search("file").results[0]
    assert held.parts is not None
    (document,) = client.encode([f"{held.title} {held.text}".strip()], role="document").encodings
    assert sum(map(operator.mul, query.cls, document.cls)) == pytest.approx(held.parts.cls, abs=1e-3)


def test_indexes_say_what_a_filter_may_name(client: Client) -> None:
    indexes = {index.name: index for index in client.indexes()}
    assert indexes.keys() == {"default", "demo"}
    assert indexes["default"].fields["metadata.lang"] == "keyword"


def test_similar_documents_are_others(client: Client) -> None:
    found = client.similar("zip", limit=len(HELD)).results
    assert {result.id for result in found} == {each.id for each in HELD} - {"zip"}


@pytest.mark.anyio
async def test_the_async_client_answers_alike(address: str, client: Client) -> None:
    async with AsyncClient(address) as asking:
        assert (await asking.search("file")).results == client.search("file").results
        assert [len(page.results) async for page in asking.pages("file", limit=4)] == [4, len(HELD) - 4]
        assert (await asking.similar("zip")).results == client.similar("zip").results
        assert await asking.document("zip") == client.document("zip")
        assert await asking.indexes() == client.indexes()
        assert (await asking.explain("file", id="zip")).words == client.explain("file", id="zip").words
        assert (await asking.encode(["file"], role="query")).encodings == client.encode(
            ["file"], role="query"
        ).encodings
        assert [type(each) for each in await asking.batch(["file", " "])] == [SearchResponse, ServiceError]
        with pytest.raises(ServiceError, match="holds no document 'none'"):
            await asking.document("none")


def test_a_problem_is_an_exception_that_carries_it(client: Client) -> None:
    with pytest.raises(ServiceError, match=r"422 .*limit.*request") as refused:
        client.search("file", limit=0)
    problem = refused.value.problem
    assert (problem.type, problem.status) == ("urn:dupmae:invalid-request", 422)
    assert problem.errors is not None
    assert problem.errors[0].field == "limit"
    with pytest.raises(ServiceError, match="default"):
        client.search("file", index="missing")


@pytest.mark.parametrize("id", ["plain", "a/b/c", "a//b", "..", "a b?c#d%2F", "ünï/日本", "x:similar"])
def test_documents_of_any_id_are_written_read_and_removed(writable: Client, id: str) -> None:
    document = DocumentIn(title="Gulls", text="They nest by the sea.", metadata={"lang": "en"})
    writable.put(id, document)
    assert writable.document(id).text == document.text
    assert id in {result.id for result in writable.search("sea", limit=100).results}
    assert writable.delete(id).id == id
    with pytest.raises(ServiceError) as gone:
        writable.document(id)
    assert gone.value.problem.type == "urn:dupmae:document-not-found"


@pytest.fixture(scope="module")
def writable(
    tiny_artifact: Artifact, tiny_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    settings = Settings(data=tmp_path_factory.mktemp("data"), threads=1, timeout_ms=60_000, writable=True)
    keep_artifact(settings, tiny_artifact)
    engine = open_engine(settings)
    engine.publish(build_index(engine, tiny_encoder, DOCUMENTS, BuildOptions(fields={"metadata.lang": "keyword"})))
    engine.close()
    with served(settings) as address, Client(address, timeout_s=60) as client:
        yield client


def test_a_busy_service_is_asked_again_after_the_time_it_names(found: httpx.Response, pauses: list[float]) -> None:
    answers = Answers(busy(retry_after="3"), busy(503, retry_after="1"), found)
    with answers.client() as client:
        assert client.search("file").results
    assert len(answers.asked) == 3
    assert {request.content for request in answers.asked} == {b'{"query":"file"}'}
    assert 3 <= pauses[0] <= 3.75
    assert 1 <= pauses[1] <= 1.25


def test_pauses_grow_where_the_service_names_none(pauses: list[float]) -> None:
    with Answers(*[busy() for _ in range(4)]).client(retries=3) as client, pytest.raises(ServiceError):
        client.search("file")
    assert len(pauses) == 3
    assert pauses[0] < pauses[1] < pauses[2]


def test_a_time_longer_than_the_timeout_is_not_waited_for(pauses: list[float]) -> None:
    answers = Answers(busy(retry_after="60"))
    with answers.client() as client, pytest.raises(ServiceError) as refused:
        client.search("file")
    assert refused.value.problem.status == 429
    assert not pauses


def test_no_other_error_is_repeated() -> None:
    for status in (400, 401, 404, 409, 410, 422, 500, 504):
        answers = Answers(busy(status))
        with answers.client() as client, pytest.raises(ServiceError):
            client.search("file")
        assert len(answers.asked) == 1


@pytest.mark.anyio
async def test_the_async_client_waits_too(found: httpx.Response) -> None:
    answers = Answers(busy(retry_after="0"), found)
    async with answers.async_client() as client:
        assert (await client.search("file")).results
    assert len(answers.asked) == 2


def test_an_answer_of_somebody_in_between_is_an_exception_with_what_it_said() -> None:
    page = httpx.Response(502, html="<h1>Bad Gateway</h1>" + "x" * 1_000)
    with Answers(page).client() as client, pytest.raises(ServiceError, match="502 Bad Gateway: <h1>") as refused:
        client.search("file")
    assert len(refused.value.problem.detail) == 200


def test_where_nothing_answers_the_exception_says_where_and_what_to_do() -> None:
    with (
        Client("http://127.0.0.1:9", retries=0) as client,
        pytest.raises(NoAnswer, match=r"http://127\.0\.0\.1:9.*serve"),
    ):
        client.search("file")
    late = Answers(httpx.ReadTimeout(""))
    with late.client() as client, pytest.raises(NoAnswer, match="ReadTimeout"):
        client.search("file")


def test_a_key_is_sent_as_a_bearer(found: httpx.Response) -> None:
    answers = Answers(found)
    with answers.client(key="secret") as client:
        client.search("file")
    assert answers.asked[0].headers["Authorization"] == "Bearer secret"
