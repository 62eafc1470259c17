"""A retriever for LangChain. Needs `langchain-core`, which nothing else here does."""

import asyncio
from typing import Any

from pydantic import ConfigDict, Field

from service.client import AsyncClient, Client, flat_metadata
from service.schemas import SearchResponse

try:
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("LangChain is not installed; `pip install 'dupmae-search[langchain]'`") from error


class DupmaeRetriever(BaseRetriever):
    """Documents from a dupmae service, best first; score, parts and explanation are in their metadata.

    Options of a search are given here as `search_kwargs`, and for one call to `invoke`, which have the last word.

    Attributes:
        client: Asks the service.
        async_client: Asks it for `ainvoke`; without one, `client` does in a thread.
        search_kwargs: See `service.client.SearchKeywords`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    client: Client
    async_client: AsyncClient | None = None
    search_kwargs: dict[str, Any] = Field(default_factory=dict)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        return _documents(self.client.search(query, **(self.search_kwargs | options)))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        asked = self.search_kwargs | options
        if self.async_client is None:
            return _documents(await asyncio.to_thread(self.client.search, query, **asked))
        return _documents(await self.async_client.search(query, **asked))


def _documents(answer: SearchResponse) -> list[Document]:
    return [
        Document(id=result.id, page_content=result.text, metadata=flat_metadata(result)) for result in answer.results
    ]
