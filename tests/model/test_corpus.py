"""Training text and records, streamed."""

import gzip
import json
import lzma
from collections import Counter
from pathlib import Path

import pytest

from model.corpus import batched, forever, read_texts, sequences, shuffled
from model.lines import SourceError


def test_texts_come_from_json_lines_and_plain_text_packed_or_not(tmp_path: Path) -> None:
    line = json.dumps({"title": "Gull", "text": "A seabird."}) + "\n"
    (tmp_path / "a.jsonl.xz").write_bytes(lzma.compress(line.encode()))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(line.encode()))
    (tmp_path / "c.txt").write_text("One line.\n\nAnother.\n")
    texts = list(read_texts(tmp_path / name for name in ("a.jsonl.xz", "b.jsonl.gz", "c.txt")))
    assert texts == ["Gull\nA seabird.", "Gull\nA seabird.", "One line.", "Another."]


@pytest.mark.parametrize("line", ["not json", '{"title": "no text"}', '{"text": null}', "[1]"])
def test_a_line_that_is_no_text_is_named_with_its_place(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "good"}\n' + line + "\n")
    with pytest.raises(SourceError, match=r"bad\.jsonl:2: want UTF-8 text or JSON"):
        list(read_texts([path]))


def test_no_token_is_lost_and_no_sequence_is_too_long() -> None:
    texts = ["a b c d e f g\nh i\nj", "k\n\nl m n o p q"]
    runs = list(sequences(texts, str.split, 4))
    assert all(0 < len(run) <= 4 for run in runs)
    assert [token for run in runs for token in run] == " ".join(texts).split()


def test_shuffling_keeps_every_item_and_repeats_for_a_seed() -> None:
    items = list(range(1000))
    one, same, other = (list(shuffled(items, window=64, seed=seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert Counter(one) == Counter(items)
    assert one != items


def test_epochs_follow_each_other_and_too_little_data_is_an_error() -> None:
    stream = forever(lambda epoch: batched([epoch] * 5, 2))
    assert [next(stream) for _ in range(3)] == [[0, 0], [0, 0], [1, 1]]
    with pytest.raises(SourceError, match="not even one batch"):
        next(forever(lambda _: batched([1], 2)))
