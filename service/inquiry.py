"""Why a document stands where it stands for a query, found or not: what `POST /v1/explain` and `dupmae explain` answer.

Its score is that of its best passage, as in a search. A filter that lets some of its passages through chooses among
those; one that lets none through leaves the score as it is, and the answer says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from indexer.filters import joined
from indexer.grouping import Wanted, parent
from indexer.live import Metadata
from indexer.points import place, point_id
from indexer.standing import standing
from indexer.store import Filter, Point
from model.encoder import Encoding
from service.explain_schemas import (
    ExplainMeta,
    ExplainResponse,
    LonelyOut,
    UnmatchedOut,
    WordOut,
)
from service.render import passage_out
from service.schemas import IndexOut, ModelOut, PartsOut, QueryOut, TermOut
from service.searcher import Searcher, best_passage
from service.words import LonelyWord, lonely_words, shared_words


@dataclass(frozen=True, kw_only=True)
class Inquiry:
    """A query, and what is asked about it.

    Attributes:
        query: Its text.
        encoding: What the encoder made of it.
        filter: Bounds the documents that are compared with.
        limit: Results of the search that is compared with.
        rank: Whether the true rank is wanted.
        may_go_on: Whether there is time left to look for it.
        sees: Whether a document with this metadata may be shown.
    """

    query: str
    encoding: Encoding
    filter: Filter | None = None
    limit: int = 10
    rank: bool = False
    may_go_on: Callable[[], bool] = lambda: True
    sees: Callable[[Metadata], bool] = lambda metadata: True


def explain_document(searcher: Searcher, inquiry: Inquiry, document_id: str) -> ExplainResponse:
    """Explain a stored document.

    Raises:
        DocumentNotFound: The index holds none of this id.
        StoreError: As `Store.search`.
    """
    vector, filter = inquiry.encoding.vector, inquiry.filter
    point = best_passage(vector, searcher.passages(searcher.document(document_id, inquiry.sees), document_id))
    allowed = _allowed(searcher, point, document_id, filter) if filter else [point]
    if filter and allowed:
        point = best_passage(vector, allowed)
    found = searcher.retrieve(vector, Wanted(filter=filter), limit=inquiry.limit)
    answer = explain_point(searcher, inquiry, point)
    answer.id = document_id
    answer.in_results = parent(point) in {parent(hit.point) for hit in found.hits}
    answer.matches_filter = bool(allowed) if filter else None
    return answer


def explain_point(searcher: Searcher, inquiry: Inquiry, point: Point) -> ExplainResponse:
    """Explain one passage, stored or not; a rank is where it stands, or would."""
    vector, vocabulary = inquiry.encoding.vector, searcher.encoder.vocabulary
    asked, held = searcher.words(inquiry.query), searcher.passage_words(point)
    parts = vector.score(point.vector)
    terms = searcher.explain(searcher.question(asked, vector), point).terms
    answer = ExplainResponse(
        score=parts.score,
        parts=PartsOut(cls=parts.cls, ot=parts.ot),
        passage=passage_out(point),
        words=[WordOut(**asdict(word)) for word in shared_words(terms)],
        terms=[TermOut(**term._asdict()) for term in terms],
        unmatched=UnmatchedOut(
            query=_out(lonely_words(vector, point.vector, asked, vocabulary)),
            document=_out(lonely_words(point.vector, vector, held, vocabulary)),
        ),
        meta=_meta(searcher, inquiry.encoding),
    )
    if inquiry.rank:
        _rank(answer, searcher, inquiry, point)
    return answer


def timed(answer: ExplainResponse, took: Mapping[str, float]) -> ExplainResponse:
    """The answer with its times, given in seconds by stage."""
    answer.meta.took_ms = {stage: round(1000 * seconds, 3) for stage, seconds in took.items()}
    return answer


def _rank(answer: ExplainResponse, searcher: Searcher, inquiry: Inquiry, point: Point) -> None:
    found = standing(
        searcher.store,
        inquiry.encoding.vector,
        answer.score,
        parent_id=parent(point),
        filter=inquiry.filter,
        may_go_on=inquiry.may_go_on,
    )
    if found.exact:
        answer.rank = found.rank
    else:
        answer.rank_at_least = found.rank


def _allowed(searcher: Searcher, point: Point, document_id: str, filter: Filter) -> list[Point]:
    """The passages of a document that a filter lets through."""
    ids = [point_id(document_id, number) for number in range(place(point).of)]
    return list(searcher.store.scroll(filter=joined(filter, "must", {"has_id": list(ids)})))


def _meta(searcher: Searcher, encoding: Encoding) -> ExplainMeta:
    build, manifest = searcher.build, searcher.encoder.artifact.manifest
    return ExplainMeta(
        took_ms={},
        model=ModelOut(name=manifest.name, fingerprint=build.fingerprint),
        index=IndexOut(name=build.index, build=build.id, documents=build.documents),
        query=QueryOut(tokens=encoding.tokens, truncated=encoding.truncated),
    )


def _out(words: list[LonelyWord]) -> list[LonelyOut]:
    return [LonelyOut(**asdict(word)) for word in words]
