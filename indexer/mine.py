"""Hard negatives for training: every record's query is searched, and some of what is found but not right is written.

Here and not in `model`, since it reads an index; `finetune` reads the file it writes.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from indexer.negatives import Candidate, Margin, RankWindow, draw, eligible, known_positives, normal
from indexer.ranker import Ranker, Ranking
from model.lines import SourceError
from model.records import Example, Records, rewrite


@dataclass(frozen=True, kw_only=True)
class MiningOptions:
    """How negatives are chosen.

    Attributes:
        ranks: Hits that are looked at.
        draw: Negatives for each record, drawn at random of those that are left.
        margin: What is too close to a positive; None leaves nothing out.
        keep: Put the negatives that a record has in front, instead of replacing them.
        seed: Of the draw.
        batch: Records searched at once.
        restart: Begin anew, whatever an earlier run left.
        hidden: Keys of passages that may not be negatives; see `text_key`.
    """

    ranks: RankWindow = field(default_factory=RankWindow)
    draw: int = 15
    margin: Margin | None = None
    keep: bool = False
    seed: int = 0
    batch: int = 64
    restart: bool = False
    hidden: frozenset[int] = frozenset()

    @property
    def made_by(self) -> dict[str, JsonValue]:
        """What the choice depends on."""
        return {
            "ranks": [self.ranks.first, self.ranks.last],
            "draw": self.draw,
            "margin": [self.margin.share, self.margin.amount] if self.margin else None,
            "keep": self.keep,
            "seed": self.seed,
            "hidden": hashlib.sha256(repr(sorted(self.hidden)).encode()).hexdigest(),
        }


@dataclass(slots=True)
class Tally:
    """What came of mining; one object, changed in place and given to the progress callback.

    Attributes:
        resumed: Records that a broken run had done before; the other numbers leave them out.
        queries: Records done.
        negatives: Drawn for them.
        short: Records for which fewer were left than asked for.
        bare: Records left with an empty list of negatives.
        hits: Hits within the ranks that might have been negatives, were it not for the margin.
        too_close: How many of them the margin left out.
        unknown: Records whose query has no vector.
        unscored: Records whose query has a vector, but none of whose positives has one to keep a margin from.
    """

    resumed: int = 0
    queries: int = 0
    negatives: int = 0
    short: int = 0
    bare: int = 0
    hits: int = 0
    too_close: int = 0
    unknown: int = 0
    unscored: int = 0


def mine(
    records: Records,
    out: Path,
    ranker: Ranker,
    options: MiningOptions,
    progress: Callable[[Tally], object] = lambda tally: None,
) -> Tally:
    """Write the records with mined negatives to a new file, going on where a broken run of the same kind stopped.

    A teacher's scores of the old texts are dropped, and so are lists that name the old negatives (`neg_id`).

    Args:
        records: Queries with their positives.
        out: The new file.
        ranker: Where negatives come from.
        options: Which are taken.
        progress: Called after each batch.

    Raises:
        OSError: The file exists, or another run is writing it; see `model.records.rewrite`.
        SourceError: There is no record; or as `rewrite`.
        StoreError: The engine failed.
    """
    if not len(records):
        raise SourceError(f"{records.path}: holds no query with a positive")
    tally, positives, read = Tally(), known_positives(records), 0

    def source() -> Iterator[Example]:
        nonlocal read
        for example in records:
            read += 1
            yield example

    def step(examples: list[Example]) -> list[Example]:
        tally.resumed = read - len(examples) - tally.queries
        rankings = ranker.rank(examples, options.ranks.last, score_positives=options.margin is not None)
        mined = [
            _mined(example, ranking, positives(example), options, tally)
            for example, ranking in zip(examples, rankings, strict=True)
        ]
        tally.queries += len(mined)
        progress(tally)
        return mined

    made_by = {"records": records.digest, **ranker.made_by, **options.made_by}
    done = rewrite(source(), out, step, batch=options.batch, made_by=made_by, restart=options.restart)
    tally.resumed = done.resumed
    return tally


def _mined(example: Example, ranking: Ranking | None, taken: set[str], options: MiningOptions, tally: Tally) -> Example:
    given = [Candidate(text, 0.0) for text in example.negatives] if options.keep else []
    kept = [candidate.text for candidate in eligible(given, taken, options.hidden)]
    pool = _pool(ranking, taken | {normal(text) for text in kept}, options, tally)
    drawn = draw(pool, options.draw, query=example.query, seed=options.seed)
    tally.negatives += len(drawn)
    tally.short += len(drawn) < options.draw
    tally.bare += not (kept or drawn)
    others = {name: value for name, value in example.others.items() if not name.startswith("neg_")}
    return Example(example.query, example.positives, (*kept, *drawn), others=others)


def _pool(ranking: Ranking | None, taken: set[str], options: MiningOptions, tally: Tally) -> list[str]:
    """The passages that may be drawn."""
    if ranking is None:
        tally.unknown += 1
        return []
    if options.margin and not ranking.positives:
        tally.unscored += 1
        return []
    limit = options.margin.limit(ranking.positives) if options.margin else math.inf
    window = ranking.hits[options.ranks.first - 1 : options.ranks.last]
    hits = list(eligible(window, taken, options.hidden))
    pool = [hit.text for hit in hits if hit.score < limit]
    tally.hits += len(hits)
    tally.too_close += len(hits) - len(pool)
    return pool
