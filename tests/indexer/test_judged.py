"""A judged split as training records, joined on disk."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from indexer.documents import Document
from indexer.judged import open_judged
from indexer.negatives import text_key
from model.lines import SourceError
from model.records import Example

DOCUMENTS = [
    Document("gull", title="Gull", text="a seabird"),
    Document("tern", text="a seabird, too"),
    Document("oak", text="a tree"),
    Document("elm", text="another  tree"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "qrels").mkdir()
    queries = {"q2": "trees", "q1": "seabirds", "q3": "mushrooms", "q4": "never judged", "7": "fish"}
    lines = (json.dumps({"_id": id, "text": text}) for id, text in queries.items())
    (tmp_path / "queries.jsonl").write_text("\n".join(lines))
    trees = [("q2", "oak", 1), ("q2", "elm", 0)]
    write_qrels(tmp_path, "train", ("q1", "tern", 1), ("q1", "gull", 2), *trees, ("q3", "gone", 1))
    write_qrels(tmp_path, "test", ("7", "elm", 0), ("7", "gull", 1))
    return tmp_path


def write_qrels(folder: Path, split: str, *rows: tuple[str, str, int]) -> None:
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in rows)]
    (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")


def judged(folder: Path, split: str, hide: Sequence[str] = ()) -> tuple[list[Example], int, frozenset[int]]:
    with open_judged(folder, split, iter(DOCUMENTS), hide=hide) as found:
        return list(found.records), found.unanswered, found.hidden


def test_a_record_has_the_passages_judged_above_0_and_one_without_any_is_counted(folder: Path) -> None:
    records, unanswered, hidden = judged(folder, "train")
    assert records == [Example("trees", ("a tree",)), Example("seabirds", ("Gull a seabird", "a seabird, too"))]
    assert (unanswered, hidden) == (1, frozenset())


def test_what_is_judged_in_another_split_is_hidden_whatever_its_grade(folder: Path) -> None:
    records, _, hidden = judged(folder, "train", ["test"])
    assert hidden == {text_key("another tree"), text_key("Gull a seabird")}
    assert "Gull a seabird" in records[1].positives, "the split's own judgement stands"


def test_the_last_judgement_of_a_pair_counts(folder: Path) -> None:
    write_qrels(folder, "train", ("q1", "tern", 1), ("q1", "gull", 1), ("q1", "tern", 0))
    assert judged(folder, "train")[0] == [Example("seabirds", ("Gull a seabird",))]


def test_a_judged_query_without_text_is_an_error(folder: Path) -> None:
    write_qrels(folder, "train", ("q1", "tern", 1), ("q9", "tern", 1), ("q8", "tern", 1))
    with pytest.raises(SourceError, match="no text for 2 judged queries, the first being 'q8'"):
        judged(folder, "train")


def test_a_split_that_is_not_there_is_named_with_those_that_are(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"nope.tsv: no such file; splits here: test, train"):
        judged(folder, "train", ["nope"])


def test_nothing_is_left_of_the_tables(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    judged(folder, "train")
    assert list(scratch.iterdir()) == []
