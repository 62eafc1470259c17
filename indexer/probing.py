"""Choosing what a build will be asked while it is served, and measuring how well it answers that now."""

from collections.abc import Mapping, Sequence
from random import Random

from indexer.grouping import grouped_hits
from indexer.judgement import Opened, encoded, ndcg, recall
from indexer.known_items import KNOWN_ITEMS, Queries, document_of, known_items
from indexer.probe_set import TOP, Figures, ProbeQuery, ProbeSet
from indexer.store import Build
from model.vector import Parts

MOST_QUERIES = 100
"""Their interval is about .06 to either side; four times as many would halve it, at four times the work."""

LONGEST_QUERY = 1_000
"""Characters: below every sensible bound of a service, so that it does not refuse what it is to be measured by."""


def make_probe_set(build: Opened, judged: Queries | None = None) -> ProbeSet | None:
    """The queries that a build will be asked, with its own figures; None if it has no text to ask for.

    Args:
        build: Opened, as it is about to be published.
        judged: Where to take them from; known items, drawn anew, unless given.

    Raises:
        StoreError: As `Store.search`.
    """
    queries = judged or known_items(build.store, build.store, count=MOST_QUERIES)
    texts = {id: text for id, text in queries.texts.items() if len(text) <= LONGEST_QUERY}
    chosen = Random(0).sample(sorted(texts), min(len(texts), MOST_QUERIES))
    vectors = encoded(build, {id: texts[id] for id in chosen})
    asked = []
    for id, vector in vectors.items():
        hits = grouped_hits(build.store, vector, limit=TOP).hits
        answer = [(document_of(hit.point), hit.parts) for hit in hits]
        right = dict(queries.qrels[id])
        asked.append(ProbeQuery(text=texts[id], right=right, own=measured(answer, right)))
    return ProbeSet(name=queries.name, queries=asked) if asked else None


def judged_before(build: Build) -> Queries | None:
    """The judged queries that a build was given once, so that publishing it again does not lose them."""
    kept = build.probe
    if kept is None or kept.name == KNOWN_ITEMS:
        return None
    numbered = {str(number): query for number, query in enumerate(kept.queries)}
    return Queries(
        kept.name,
        {id: query.text for id, query in numbered.items()},
        {id: query.right for id, query in numbered.items()},
    )


def measured(answer: Sequence[tuple[str, Parts]], right: Mapping[str, int]) -> Figures:
    """How well a query was answered.

    Args:
        answer: Documents with the parts of their scores, best first.
        right: Grade by document id; one at least is above 0.

    >>> measured([("gull", Parts(cls=1.0, ot=3.0))], {"gull": 1})
    Figures(ndcg_at_10=1.0, recall_at_10=1.0, ot_share=0.75)
    """
    ranking = [document for document, _ in answer]
    return Figures(ndcg(ranking, right), recall(ranking, right, at=TOP), answer[0][1].ot_share if answer else 0.0)
