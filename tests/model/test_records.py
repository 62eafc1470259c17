"""Training records in FlagEmbedding's format."""

from pathlib import Path

import pytest

from model.lines import SourceError
from model.records import Example, read_examples


def test_records_are_read_in_flagembeddings_format(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"query": "q", "pos": ["a"], "neg": ["b", "c"]}\n{"query": "r", "pos": ["d"]}\n')
    assert list(read_examples(path)) == [Example("q", ("a",), ("b", "c")), Example("r", ("d",))]


@pytest.mark.parametrize(
    "record",
    ['{"query": "q"}', '{"query": "q", "pos": []}', '{"query": "q", "pos": "abc"}', '{"query": "q", "pos": [1]}'],
)
def test_a_record_without_a_list_of_positives_is_named_with_its_place(tmp_path: Path, record: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(record + "\n")
    with pytest.raises(SourceError, match=r"train\.jsonl:1: want"):
        list(read_examples(path))
