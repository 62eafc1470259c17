"""Examples of requests, as the API's description shows them; a test sends each to a running service."""

from typing import Any

from fastapi.openapi.models import Example


def _examples(**bodies: tuple[str, Any]) -> dict[str, Example]:
    return {name: Example(summary=summary, value=value) for name, (summary, value) in bodies.items()}


SEARCH = _examples(
    plain=("A query, and nothing else", {"query": "compress a file"}),
    explained=(
        "Five results, each with what every word added to its score",
        {"query": "compress a file", "limit": 5, "with": ["parts", "explain"]},
    ),
    filtered=(
        "One document only, by a filter",
        {"query": "compress a file", "filter": {"must": [{"key": "doc_id", "match": {"any": ["zip", "sort"]}}]}},
    ),
    passages=(
        "Every passage by itself, by the meaning alone",
        {"query": "sound", "group_by": "passage", "mode": "cls"},
    ),
)

BATCH = _examples(
    two=("Two searches", {"searches": [{"query": "compress a file"}, {"query": "sort a list", "limit": 3}]}),
    one_refused=(
        "A search that is refused by itself",
        {
            "searches": [
                {"query": "sound"},
                {"query": "sound", "filter": {"must": [{"key": "no", "match": {"value": 1}}]}},
            ]
        },
    ),
)

SIMILAR = _examples(
    plain=("The most similar documents", {}),
    few=("Three of them, by the words alone", {"limit": 3, "mode": "ot"}),
)

EXPLAIN = _examples(
    document=("A document of the index, found or not", {"query": "compress a file", "id": "zip"}),
    rank=("The same with its true rank", {"query": "compress a file", "id": "king", "rank": True}),
    text=(
        "A text that is in no index, and the rank it would have",
        {"query": "compress a file", "text": "How to make an archive smaller.", "rank": True},
    ),
)

ENCODE = _examples(
    documents=("Two documents", {"texts": ["A ship at sea by night.", "The speed of sound in air."]}),
    query=("A query", {"texts": ["compress a file"], "role": "query"}),
)

DOCUMENT = _examples(
    document=(
        "A document with a field to filter on",
        {"title": "Gulls", "text": "They nest on cliffs.", "metadata": {"lang": "en"}},
    ),
)

PUBLISH = _examples(
    gated=("If it is sound and finds as much as what is published", {}),
    limits=("With a gate that puts up with more", {"tolerance": 0.02, "max_shrink": 0.5}),
    forced=("Whatever the gate would say", {"gate": False}),
)

ROLLBACK = _examples(rollback=("The build that was live before", {}))
