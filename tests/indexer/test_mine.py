"""BM25 negatives: a judged passage is never among them, and the file is what training reads."""

from pathlib import Path

import pytest

from indexer.bm25 import Bm25
from indexer.documents import Document
from indexer.mine import RankWindow, bm25_negatives, write_records
from model.records import Example, read_examples

DOCUMENTS = [
    Document("gull", title="Gull", text="a seabird that nests on cliffs"),
    Document("puffin", text="a seabird that nests in burrows"),
    Document("tern", text="a seabird that dives for fish"),
    Document("copy", title="Gull", text="a seabird that nests on cliffs"),
    Document("oak", text="a tree"),
]
QUERIES = {"q1": "seabird nests cliffs", "q2": "tree", "q3": "never judged"}
QRELS = {"q1": {"gull": 1, "tern": 0}, "q2": {"missing": 1}}


def test_a_negative_shares_words_but_is_neither_judged_right_nor_its_copy() -> None:
    (record,) = bm25_negatives(DOCUMENTS, QUERIES, QRELS)
    assert record["query"] == "seabird nests cliffs"
    assert record["pos"] == ["Gull a seabird that nests on cliffs"]
    assert sorted(record["neg"]) == ["a seabird that dives for fish", "a seabird that nests in burrows"]  # type: ignore[call-overload]  # `object` in the record


def test_the_window_leaves_out_the_first_ranks_and_draws_no_more_than_asked() -> None:
    (record,) = bm25_negatives(DOCUMENTS, QUERIES, QRELS, window=RankWindow(start=3, stop=4, draw=1))
    assert record["neg"] == ["a seabird that dives for fish"]


def test_the_file_is_what_training_reads(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    assert write_records(bm25_negatives(DOCUMENTS, QUERIES, QRELS, window=RankWindow(stop=1)), path) == 1
    assert list(read_examples(path)) == [Example("seabird nests cliffs", ("Gull a seabird that nests on cliffs",))]


def test_bm25_ranks_by_score_then_row_and_leaves_out_what_shares_no_word() -> None:
    hits = Bm25(document.passage for document in DOCUMENTS).search(["cliffs", "zebra"], 5)
    assert [hit.row for hit in hits[0]] == [0, 3]
    assert hits[0][0].score == pytest.approx(hits[0][1].score)
    assert hits[1] == []
