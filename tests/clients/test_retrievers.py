"""Our retrievers inside the frameworks they are for; skipped where those are not installed."""

from collections.abc import Iterator

import pytest

from service.client import AsyncClient, Client

pytestmark = pytest.mark.frameworks

ENGLISH = {"must": [{"key": "metadata.lang", "match": {"value": "en"}}]}


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


def test_langchain_gets_documents_in_the_order_of_the_search(client: Client) -> None:
    from service.langchain import DupmaeRetriever

    retriever = DupmaeRetriever(client=client, search_kwargs={"limit": 4, "with_": ["parts", "explain"]})
    found = retriever.invoke("how to compress a file")
    expected = client.search("how to compress a file", limit=4).results
    assert [document.id for document in found] == [result.id for result in expected]
    for document, result in zip(found, expected, strict=True):
        assert document.page_content == result.text
        assert document.metadata["score"] == result.score
        assert sum(document.metadata["parts"].values()) == pytest.approx(result.score, abs=1e-4)
        assert document.metadata["explain"]
        assert result.metadata.items() <= document.metadata.items()


def test_options_of_one_langchain_call_have_the_last_word(client: Client) -> None:
    from service.langchain import DupmaeRetriever

    retriever = DupmaeRetriever(client=client, search_kwargs={"limit": 1})
    found = retriever.invoke("file", filter=ENGLISH, limit=5, mode="ot")
    assert {document.id for document in found} == {"sound", "time"}
    assert all(document.metadata["parts"]["cls"] == 0 for document in found)


@pytest.mark.anyio
async def test_langchain_asks_asynchronously_with_a_client_for_it_and_without(address: str, client: Client) -> None:
    from langchain_core.runnables import RunnableLambda

    from service.langchain import DupmaeRetriever

    async with AsyncClient(address) as asking:
        chain = DupmaeRetriever(client=client, async_client=asking) | RunnableLambda(
            lambda found: [d.id for d in found]
        )
        there = await chain.ainvoke("file")
    assert there == [document.id for document in await DupmaeRetriever(client=client).ainvoke("file", limit=10)]


def test_llamaindex_gets_nodes_whose_texts_show_models_no_scores(client: Client) -> None:
    from llama_index.core.schema import MetadataMode

    from service.llamaindex import DupmaeRetriever

    retriever = DupmaeRetriever(client, limit=3, with_=["parts", "explain"], filter=ENGLISH)
    found = retriever.retrieve("the speed of sound")
    expected = client.search("the speed of sound", limit=3, filter=ENGLISH).results
    assert [(node.node.ref_doc_id, node.score) for node in found] == [(each.id, each.score) for each in expected]
    read = found[0].node.get_content(MetadataMode.LLM)
    assert f"title: {expected[0].title}" in read
    assert "lang: en" in read
    assert "score" not in read
    assert "explain" not in read
    assert found[0].node.metadata["explain"]


@pytest.mark.anyio
async def test_llamaindex_asks_asynchronously_with_a_client_for_it_and_without(address: str, client: Client) -> None:
    from service.llamaindex import DupmaeRetriever

    async with AsyncClient(address) as asking:
        there = await DupmaeRetriever(client, async_client=asking).aretrieve("file")
    assert [node.node_id for node in there] == [
        node.node_id for node in await DupmaeRetriever(client).aretrieve("file")
    ]


def test_an_error_of_the_service_comes_through_both(client: Client) -> None:
    from service.client import ServiceError
    from service.langchain import DupmaeRetriever as LangChain
    from service.llamaindex import DupmaeRetriever as LlamaIndex

    with pytest.raises(ServiceError, match="missing"):
        LangChain(client=client).invoke("file", index="missing")
    with pytest.raises(ServiceError, match="missing"):
        LlamaIndex(client, index="missing").retrieve("file")
