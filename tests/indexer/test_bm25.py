"""BM25 over texts that pass through, and as a ranker whose passages lie in a file."""

import io
import tempfile

import pytest

from indexer.bm25 import Bm25, Bm25Ranker
from indexer.negatives import Candidate
from indexer.ranker import Ranking
from model.lines import SourceError
from model.records import Example

PASSAGES = [
    "Gull a seabird that nests on cliffs",
    "a seabird that nests in burrows",
    "a seabird that dives for fish, ü",
    "Gull a seabird that nests on cliffs",
    "a tree",
]


def test_bm25_ranks_by_score_then_row_and_leaves_out_what_shares_no_word() -> None:
    hits = Bm25(iter(PASSAGES)).search(["cliffs", "zebra"], 5)
    assert [hit.row for hit in hits[0]] == [0, 3]
    assert hits[0][0].score == pytest.approx(hits[0][1].score)
    assert hits[1] == []


@pytest.mark.parametrize(("passages", "number"), [([], 0), (["the of", "?"], 2)])
def test_passages_without_a_word_to_find_them_by_are_an_error(passages: list[str], number: int) -> None:
    with pytest.raises(SourceError, match=f"none of {number} passages"):
        Bm25(passages)


def test_a_ranker_gives_the_texts_of_the_hits() -> None:
    examples = [
        Example("diving for fish", ("x",)),
        Example("zebra", ("x",)),
        Example("a gull on cliffs or in burrows", ("x",)),
    ]
    with tempfile.TemporaryFile() as file:
        rankings = Bm25Ranker(iter(PASSAGES), file).rank(examples, 3, score_positives=False)
    assert [_texts(ranking) for ranking in rankings] == [
        [PASSAGES[2]],
        [],
        [PASSAGES[0], PASSAGES[3], PASSAGES[1]],
    ]


def test_rankers_are_made_by_the_same_only_if_their_passages_are() -> None:
    made_by = [Bm25Ranker(passages, io.BytesIO()).made_by for passages in (PASSAGES, PASSAGES, PASSAGES[1:])]
    assert made_by[0] == made_by[1] != made_by[2]


def _texts(ranking: Ranking | None) -> list[str]:
    assert ranking is not None
    assert all(isinstance(hit, Candidate) and hit.score > 0 for hit in ranking.hits)
    return [hit.text for hit in ranking.hits]
