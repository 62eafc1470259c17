"""From hits to the answer that goes over the wire."""

from collections.abc import Collection, Mapping, Sequence

from indexer.points import place
from indexer.store import Hit, Mode, Point
from model.encoder import Encoding
from service.explain import Question
from service.schemas import (
    IndexOut,
    Meta,
    ModelOut,
    PassageOut,
    QueryOut,
    ResultOut,
    SearchResponse,
    With,
)
from service.searcher import Searcher
from service.snippet import snippet
from service.spans import traced


@traced("render")
def render(
    searcher: Searcher, query: str, encoding: Encoding, hits: Sequence[Hit], *, with_: Collection[With]
) -> list[ResultOut]:
    """Each hit with its snippet and, as far as `with_` asks for them, its parts and its explanation."""
    question = searcher.question(searcher.words(query), encoding.vector)
    return [_result(searcher, question, hit, with_) for hit in hits]


def respond(
    searcher: Searcher,
    encoding: Encoding,
    results: list[ResultOut],
    *,
    mode: Mode,
    complete: bool,
    took: Mapping[str, float],
) -> SearchResponse:
    """The whole answer; `took` in seconds by stage."""
    build, manifest = searcher.build, searcher.encoder.artifact.manifest
    meta = Meta(
        took_ms={stage: round(1000 * seconds, 3) for stage, seconds in took.items()},
        mode=mode,
        complete=complete,
        model=ModelOut(name=manifest.name, fingerprint=build.fingerprint),
        index=IndexOut(name=build.index, build=build.id, documents=build.documents),
        query=QueryOut(tokens=encoding.tokens, truncated=encoding.truncated),
    )
    return SearchResponse(results=results, meta=meta)


def passage_out(point: Point) -> PassageOut:
    """Where a stored passage stands, counted from 1 as people do."""
    number, of, start, end = place(point)
    return PassageOut(number=number + 1, of=of, start=start, end=end)


def _result(searcher: Searcher, question: Question, hit: Hit, with_: Collection[With]) -> ResultOut:
    payload = hit.point.payload
    explanation = searcher.explain(question, hit.point)
    text, metadata = str(payload.get("text", "")), payload.get("metadata")
    result = {
        "id": str(payload["doc_id"]),
        "score": hit.score,
        "parts": hit.parts if "parts" in with_ else None,
        "title": str(payload.get("title", "")),
        "text": text,
        "passage": passage_out(hit.point),
        "url": str(payload.get("url", "")),
        "metadata": metadata if isinstance(metadata, dict) else {},
        "highlights": snippet(text, explanation.carriers),
        "explain": explanation.terms if "explain" in with_ else None,
    }
    return ResultOut.model_validate(result, from_attributes=True)
