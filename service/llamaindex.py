"""A retriever for LlamaIndex. Needs `llama-index-core`, which nothing else here does."""

import asyncio
from typing import Unpack

from service.client import AsyncClient, Client, SearchKeywords, flat_metadata
from service.schemas import ResultOut, SearchResponse

try:
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("LlamaIndex is not installed; `pip install 'dupmae-search[llamaindex]'`") from error

SHOWN_TO_MODELS = ("title", "url")
"""Of what a search adds to a document's own metadata, what a language model should read."""


class DupmaeRetriever(BaseRetriever):
    """Nodes from a dupmae service, best first; parts and explanation are in their metadata.

    Metadata that the search added is kept from language models, but for title and address.

    Args:
        client: Asks the service.
        async_client: Asks it for `aretrieve`; without one, `client` does in a thread.
        options: Of every search.
    """

    def __init__(
        self, client: Client, *, async_client: AsyncClient | None = None, **options: Unpack[SearchKeywords]
    ) -> None:
        super().__init__()
        self._client = client
        self._async_client = async_client
        self._options = options

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(self._client.search(query_bundle.query_str, **self._options))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if self._async_client is None:
            return await asyncio.to_thread(self._retrieve, query_bundle)
        return _nodes(await self._async_client.search(query_bundle.query_str, **self._options))


def _nodes(answer: SearchResponse) -> list[NodeWithScore]:
    return [NodeWithScore(node=_node(result), score=result.score) for result in answer.results]


def _node(result: ResultOut) -> TextNode:
    metadata = flat_metadata(result)
    hidden = sorted(metadata.keys() - result.metadata.keys() - set(SHOWN_TO_MODELS))
    return TextNode(
        id_=f"{result.id}#{result.passage.number}",
        text=result.text,
        metadata=metadata,
        excluded_llm_metadata_keys=hidden,
        excluded_embed_metadata_keys=hidden,
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=result.id)},
    )
