"""Training text, streamed."""

import gzip
import json
import lzma
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.corpus import read_texts, sequences
from model.lines import MAX_LINE_BYTES, SourceError


def test_texts_come_from_json_lines_and_plain_text_packed_or_not(tmp_path: Path) -> None:
    line = json.dumps({"title": "Gull", "text": "A seabird."}) + "\n"
    (tmp_path / "a.jsonl.xz").write_bytes(lzma.compress(line.encode()))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(line.encode()))
    (tmp_path / "c.txt").write_text("One line.\n\nAnother.\n")
    texts = list(read_texts(tmp_path / name for name in ("a.jsonl.xz", "b.jsonl.gz", "c.txt")))
    assert texts == ["Gull\nA seabird.", "Gull\nA seabird.", "One line.", "Another."]


def test_blank_lines_and_blank_texts_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "good"}\n\n{"title": null, "text": "  "}\n  \r\n{"text": "better"}\n\n')
    assert [text.strip() for text in read_texts([path])] == ["good", "better"]


BAD = [
    b"not json",
    b'{"title": "no text"}',
    b'{"text": null}',
    b"[1]",
    b"[" * 100_000,
    b'{"text": "\\ud800 x"}',
    b"\xff",
]


@pytest.mark.parametrize("line", BAD, ids=range(len(BAD)))
def test_a_line_that_is_no_text_is_named_with_its_place(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"text": "good"}\n' + line + b"\n")
    with pytest.raises(SourceError, match=r"bad\.jsonl:2: want UTF-8 text or JSON"):
        list(read_texts([path]))


@pytest.mark.parametrize("name", ["bad.txt", "bad.jsonl"])
def test_a_line_longer_than_a_record_is_refused_rather_than_cut(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"a" * (MAX_LINE_BYTES + 1))
    with pytest.raises(SourceError, match=r"bad\.\w+:1: .*longer than 16 MiB"):
        list(read_texts([path]))


def test_a_missing_file_and_a_cut_archive_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.txt: No such file"):
        list(read_texts([tmp_path / "none.txt"]))
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"text\n" * 1000)[:-9])
    with pytest.raises(SourceError, match=r"cut\.txt\.gz: damaged or incomplete"):
        list(read_texts([tmp_path / "cut.txt.gz"]))


@settings(deadline=None)
@given(paragraphs=st.lists(st.lists(st.integers(0, 9), max_size=12)), max_tokens=st.integers(1, 8))
def test_no_token_is_lost_and_no_run_is_too_long(paragraphs: list[list[int]], max_tokens: int) -> None:
    runs = list(sequences(paragraphs, max_tokens))
    assert all(0 < len(run) <= max_tokens for run in runs)
    assert [token for run in runs for token in run] == [token for paragraph in paragraphs for token in paragraph]


def test_a_paragraph_is_cut_only_if_it_is_longer_than_a_run() -> None:
    paragraphs = [list("abc"), list("de"), list("fghi"), list("jklmnop"), list("q")]
    assert list(map("".join, sequences(paragraphs, 4))) == ["abc", "de", "fghi", "jklm", "nopq"]
