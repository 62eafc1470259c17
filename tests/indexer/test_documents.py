"""A document is what it says, not where it stood; queries and judgements are read whole or not at all."""

import io
from pathlib import Path

import pytest

from indexer.documents import BadRecord, Document, distinct, load_qrels, load_queries
from indexer.sources import read_documents
from model.lines import SourceError


def test_an_id_that_occurs_twice_is_bad_the_second_time_and_names_where() -> None:
    first, again = Document("a", text="one", source="x", line=1), Document("a", text="two", source="y", line=7)
    other, bad = Document("b", text="one"), BadRecord("x", 2, "not JSON", "{")
    *kept, refused = distinct([first, bad, other, again])
    assert kept == [first, bad, other]
    assert isinstance(refused, BadRecord)
    assert (refused.place, refused.reason) == ("y, line 7", "id 'a' occurs twice")


def test_a_refused_document_can_be_read_again_from_its_record() -> None:
    document = Document("a", "Möwen", "nest", "http://x", {"metadata": {"id": 1}, "title": "other"})
    (again,) = read_documents(["-"], io.BytesIO(document.refused("no vector").record.encode()))
    assert again == document


def test_the_content_hash_tells_every_change_and_nothing_else() -> None:
    document = Document("a", "t", "x", "u", {"k": 1, "l": 2})
    assert document.content_hash == Document("b", "t", "x", "u", {"l": 2, "k": 1}).content_hash
    changed = [
        Document("a", "tx", "", "u", {"k": 1, "l": 2}),
        Document("a", "t", "x", "", {"k": 1, "l": 2}),
        Document("a", "t", "x", "u", {"k": 1, "l": "2"}),
    ]
    assert len({document.content_hash, *(other.content_hash for other in changed)}) == 4


def test_queries_and_judgements_of_a_beir_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "seabirds"}\n')
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\ta\t1\nq1\t7\t-1\n")
    assert load_queries(tmp_path) == {"q1": "seabirds"}
    assert load_qrels(tmp_path) == {"q1": {"a": 1, "7": -1}}


def test_judgements_without_a_header_lose_no_line(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/dev.tsv").write_text("q1\ta\t-1\nq1\tb\t1\n")
    assert load_qrels(tmp_path, "dev") == {"q1": {"a": -1, "b": 1}}


def test_judgements_that_judge_nothing_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n")
    with pytest.raises(SourceError, match="holds no judgement"):
        load_qrels(tmp_path)


def test_an_unknown_split_names_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/dev.tsv").write_text("q1\ta\t1\n")
    with pytest.raises(SourceError, match="splits here: dev"):
        load_qrels(tmp_path, "test")


def test_a_broken_judgement_is_an_error_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1 a 1\n")
    with pytest.raises(SourceError, match="line 2: expected query-id"):
        load_qrels(tmp_path)
