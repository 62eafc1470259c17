"""What a request costs in operations that repeat, where its time does not: calls of the engine, of the model, of our
own functions. Speed itself is measured in bench/ and never here.

A ceiling is what was counted, and a little room for another Python. Who makes a request do more raises it knowingly;
who makes it do less lowers it.
"""

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import httpx
import pytest

from tests.service.conftest import Serve

pytestmark = pytest.mark.anyio

OURS = {"model", "indexer", "service"}
OUR_CALLS = "calls of our functions"
RUN = "Encoder._run"
"""A call of the graph."""

QUERIES = ("a horse", "the sea by night", "the speed of sound", "the queen of the island")
ROOM = 1.1


class Operations(Counter[str]):
    """Calls by name, in every thread that begins inside `counted`."""

    def seen(self, frame: FrameType, event: str, called: Any) -> None:
        """As `sys.setprofile` tells it."""
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.partition(".")[0] in OURS:
            self[OUR_CALLS] += 1
            self[frame.f_code.co_qualname] += 1
        elif event == "call" and module == "json":
            self[f"json.{frame.f_code.co_name}"] += 1
        elif event == "c_call":
            self[getattr(called, "__qualname__", "")] += 1

    def of_the_engine(self) -> dict[str, int]:
        return {name: count for name, count in self.items() if name.startswith("EdgeShard.")}


@contextmanager
def counted() -> Iterator[Operations]:
    operations = Operations()
    threading.setprofile(operations.seen)
    sys.setprofile(operations.seen)
    try:
        yield operations
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


async def cost(client: httpx.AsyncClient, operations: Operations, path: str, **body: Any) -> Operations:
    """Operations of one request."""
    operations.clear()
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return Operations(operations)


@pytest.fixture
async def searched(serve: Serve) -> tuple[Operations, Operations]:
    """Of a search for one hit and of one for five, when words and layouts are known; the queries are new to it."""
    with counted() as operations:
        async with serve(cache_mb=0) as client:
            for query in QUERIES:
                await cost(client, operations, "/v1/search", query=query, limit=5)
            one = await cost(client, operations, "/v1/search", query="a ship", limit=1)
            return one, await cost(client, operations, "/v1/search", query="a ship", limit=5)


async def test_a_search_is_one_call_of_the_graph_and_few_of_the_engine(searched: tuple[Operations, Operations]) -> None:
    for operations in searched:
        assert operations[RUN] == 1
        assert operations.of_the_engine().keys() == {"EdgeShard.info", "EdgeShard.query_batch", "EdgeShard.retrieve"}
        assert 1 <= operations["EdgeShard.query_batch"] <= 3, "both sides, and what only one of them has found"
        assert operations["EdgeShard.info"] == 1
        assert operations["EdgeShard.retrieve"] == 1


async def test_a_search_wakes_the_event_loop_once_for_the_model_and_once_for_the_store(
    searched: tuple[Operations, Operations],
) -> None:
    for operations in searched:
        assert operations["socket.send"] == 2, "what `call_soon_threadsafe` writes to itself"


async def test_a_body_is_parsed_once_and_an_answer_made_into_json_once(searched: tuple[Operations, Operations]) -> None:
    for operations in searched:
        assert operations["json.loads"] == 1
        assert operations["SchemaSerializer.to_json"] == 1
        assert operations["json.dumps"] <= 5, "the caller's, three for the next page, a line of the log if any"


async def test_a_search_calls_no_more_of_our_functions_than_it_did(searched: tuple[Operations, Operations]) -> None:
    one, five = searched
    assert one[OUR_CALLS] <= 391 * ROOM
    assert (five[OUR_CALLS] - one[OUR_CALLS]) / 4 <= 60 * ROOM, "a hit more"


async def test_the_event_loop_keeps_the_lock_while_it_tokenizes_and_signs(
    searched: tuple[Operations, Operations],
) -> None:
    """Who lets go of Python's lock waits for whoever took it, and the event loop is what everybody waits for."""
    for operations in searched:
        assert operations["Tokenizer.encode"] == 1
        assert not {"Tokenizer.encode_batch", "Tokenizer.encode_batch_fast", "hmac_digest"} & operations.keys()


async def test_searches_of_a_batch_share_the_call_of_the_graph(serve: Serve) -> None:
    with counted() as operations:
        async with serve(cache_mb=0) as client:
            batch = [{"query": query} for query in QUERIES]
            await cost(client, operations, "/v1/search:batch", searches=batch)
            done = await cost(client, operations, "/v1/search:batch", searches=batch)
    assert done[RUN] == 1
    assert done["EdgeShard.query_batch"] <= 3 * len(QUERIES)
    assert done["EdgeShard.retrieve"] == len(QUERIES)


async def test_a_remembered_answer_asks_neither_the_model_nor_the_engine(serve: Serve) -> None:
    with counted() as operations:
        async with serve() as client:
            await cost(client, operations, "/v1/search", query="a ship", limit=5)
            again = await cost(client, operations, "/v1/search", query="a ship", limit=5)
    assert again[RUN] == 0
    assert not again.of_the_engine()
    assert again[OUR_CALLS] <= 89 * ROOM


async def test_counting_is_the_same_every_time(serve: Serve) -> None:
    with counted() as operations:
        async with serve(cache_mb=0) as client:
            for query in QUERIES:
                await cost(client, operations, "/v1/search", query=query)
            counts = [(await cost(client, operations, "/v1/search", query="a ship"))[OUR_CALLS] for _ in range(3)]
    assert max(counts) - min(counts) <= 2, counts
