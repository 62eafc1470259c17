"""Every line of JSON lines becomes a document or a bad record that says why; packed files are read to their end."""

import io
import json
import sys
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from indexer.documents import BadRecord, Document
from indexer.sources import count_records, read_documents
from model.lines import MAX_LINE_BYTES, PACKED, SourceError, split_lines
from tests.indexer.conftest import PACKERS

LINES = b'{"_id": "a", "title": "Gulls", "text": "nest on cliffs"}\n{"id": 7, "contents": "Terns dive."}\n'
GULLS = Document("a", title="Gulls", text="nest on cliffs")
TERNS = Document("7", text="Terns dive.")


def documents_of(content: bytes) -> list[Document | BadRecord]:
    return list(read_documents(["-"], io.BytesIO(content)))


def reason_of(line: bytes) -> str:
    (record,) = documents_of(line)
    assert isinstance(record, BadRecord)
    return record.reason


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_file_reads_the_same_plain_and_packed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"birds.jsonl{suffix}"
    path.write_bytes(PACKERS[suffix](LINES))
    assert list(read_documents([path])) == [GULLS, TERNS]
    assert count_records([path]) == 2


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_beir_folder_is_read_through_its_corpus_file(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"corpus.jsonl{suffix}").write_bytes(PACKERS[suffix](LINES))
    assert list(read_documents([tmp_path])) == [GULLS, TERNS]


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("kept", [5, -9])
def test_an_archive_that_ends_too_early_is_an_error_and_not_a_short_corpus(
    tmp_path: Path, suffix: str, kept: int
) -> None:
    path = tmp_path / f"cut.jsonl{suffix}"
    path.write_bytes(PACKERS[suffix](LINES * 1000)[:kept])
    with pytest.raises(SourceError, match="damaged or incomplete"):
        list(read_documents([path]))


@pytest.mark.parametrize("suffix", PACKED)
def test_archives_glued_together_are_read_to_the_end(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"glued.jsonl{suffix}"
    path.write_bytes(b"".join(PACKERS[suffix](line) for line in LINES.splitlines(keepends=True)))
    assert list(read_documents([path])) == [GULLS, TERNS]


@pytest.mark.parametrize("suffix", PACKED)
def test_a_file_that_is_no_archive_is_an_error_with_its_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plain.jsonl{suffix}"
    path.write_bytes(LINES)
    with pytest.raises(SourceError, match=f"plain.jsonl{suffix}"):
        list(read_documents([path]))


def test_without_the_extra_a_zst_file_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "birds.jsonl.zst").write_bytes(zstandard.compress(LINES))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(SourceError, match=r"pip install 'dupmae-search\[zstd\]'"):
        list(read_documents([tmp_path / "birds.jsonl.zst"]))


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.jsonl: No such file"):
        list(read_documents([tmp_path / "nowhere.jsonl"]))
    with pytest.raises(SourceError, match=r"holds neither corpus\.jsonl nor text"):
        list(read_documents([tmp_path]))
    with pytest.raises(SourceError, match="not connected"):
        list(read_documents(["-"]))


def test_standard_input_has_no_known_length() -> None:
    assert count_records(["-"]) is None


def test_other_fields_become_metadata_and_a_metadata_object_is_merged_in() -> None:
    line = b'{"_id": "a", "id": 9, "text": "x", "url": "http://b", "lang": "en", "metadata": {"year": 2015}}'
    assert documents_of(line) == [
        Document("a", text="x", url="http://b", metadata={"id": 9, "lang": "en", "year": 2015})
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"id": "a", "text": "\xff"}', "not UTF-8: byte 0xff at 21"),
        (b'{"text": "x"}', "no id"),
        (b'{"id": "", "text": "x"}', "no id"),
        (b'{"id": true, "text": "x"}', "no id"),
        (b'{"id": "a", "title": " ", "text": null}', "both empty"),
        (b'{"id": "a", "text": 5}', "text is not a string"),
        (b'{"id": "a", "text": "x", "metadata": "en"}', "metadata is not an object"),
        (b'{"id": "a", "text": "x", "n": NaN}', "NaN is not a JSON number"),
        (b'{"id": "a", "text": "x", "n": 1e999}', "1e999 is not a JSON number"),
        (b'{"id": "a", "text": "x", "n": 99999999999999999999}', "does not fit into 64 bits"),
        (rb'{"id": "a", "text": "\ud83d"}', "half of a surrogate pair"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"id": "a", "text": "' + b"x" * MAX_LINE_BYTES + b'"}', "longer than 16 MiB"),
    ],
    ids=lambda value: value[:24].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_a_line_that_is_no_document_is_reported_with_its_reason(line: bytes, reason: str) -> None:
    assert reason in reason_of(line)


def test_a_bad_line_is_located_kept_and_does_not_spoil_its_neighbors() -> None:
    first, second = LINES.splitlines()
    assert documents_of(first + b"\n\n\xffoops\n" + second) == [
        GULLS,
        BadRecord("-", 3, "not UTF-8: byte 0xff at 0", r"\xffoops"),
        TERNS,
    ]


def test_a_byte_order_mark_is_not_part_of_the_first_record() -> None:
    assert documents_of(b"\xef\xbb\xbf" + LINES) == [GULLS, TERNS]


def test_windows_line_ends_are_no_part_of_a_record() -> None:
    assert documents_of(LINES.replace(b"\n", b"\r\n")) == [GULLS, TERNS]


@given(st.binary(max_size=200).map(lambda content: content.replace(b"x", b"\n")), st.integers(1, 7))
def test_lines_do_not_depend_on_where_the_chunks_are_cut(content: bytes, size: int) -> None:
    chunks = [content[start : start + size] for start in range(0, len(content), size)]
    assert list(split_lines(chunks)) == content.removesuffix(b"\n").split(b"\n") * bool(content)


@given(st.dictionaries(st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=5), max_size=4))
def test_no_record_of_any_shape_is_lost(record: dict[str, int | str]) -> None:
    assert len(documents_of(json.dumps(record).encode())) == 1
