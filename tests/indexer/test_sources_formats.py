"""The same documents come out of every format, packed or not, from a file and from standard input."""

import csv
import io
import json
import lzma
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.documents import BadRecord, Document
from indexer.sources import Format, ReadOptions, count_records, read_documents
from indexer.sources.inputs import SUFFIXES
from model.lines import PACKED, SourceError
from tests.indexer.conftest import PACKERS

BIRDS = [
    Document("1", "Gulls", 'They "nest",\non cliffs.', "http://birds/1", {"lang": "en", "places": ["sea", "town"]}),
    Document("2", "", "Möwen; brüten 🥚", "", {"lang": "de", "places": []}),
    Document("a\\b", "Terns", "", "", {"lang": "en", "places": ["lake"]}),
]


def write_jsonl(documents: list[Document]) -> bytes:
    return "".join(f"{document.refused('').record}\n" for document in documents).encode()


def write_csv(documents: list[Document], delimiter: str = ",") -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(["id", "title", "text", "url", "metadata"])
    for document in documents:
        row = [document.id, document.title, document.text, document.url, json.dumps(document.metadata)]
        writer.writerow(row)
    return file.getvalue().encode()


def write_tsv(documents: list[Document]) -> bytes:
    rows = [["_id", "title", "text", "url", "metadata"]]
    rows += [[each.id, each.title, each.text, each.url, json.dumps(each.metadata)] for each in documents]
    return "".join("\t".join(row) + "\r\n" for row in rows).encode()


def write_parquet(documents: list[Document]) -> bytes:
    file = io.BytesIO()
    rows = [
        {"id": each.id, "title": each.title or None, "text": each.text, "url": each.url, **each.metadata}
        for each in documents
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


WRITERS: dict[Format, Callable[[list[Document]], bytes]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "tsv": write_tsv,
    "parquet": write_parquet,
}
LINE_FORMATS: list[Format] = ["jsonl", "csv", "tsv"]


def birds_for(format: Format) -> list[Document]:
    """Tab-separated values have no line breaks in a cell."""
    return BIRDS[1:] if format == "tsv" else BIRDS


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("format", LINE_FORMATS)
def test_every_format_of_lines_gives_the_same_documents_plain_and_packed(
    tmp_path: Path, format: Format, suffix: str
) -> None:
    path = tmp_path / f"birds.{format}{suffix}"
    path.write_bytes(PACKERS[suffix](WRITERS[format](birds_for(format))))
    assert list(read_documents([path])) == birds_for(format)
    assert count_records([path]) == len(birds_for(format))


def test_parquet_gives_the_same_documents(tmp_path: Path) -> None:
    path = tmp_path / "birds.parquet"
    path.write_bytes(write_parquet(BIRDS))
    assert list(read_documents([path])) == BIRDS
    assert count_records([path]) == len(BIRDS)


@pytest.mark.parametrize("format", LINE_FORMATS)
def test_standard_input_gives_the_same_documents(format: Format) -> None:
    content = io.BytesIO(WRITERS[format](birds_for(format)))
    assert list(read_documents(["-"], content, ReadOptions(format))) == birds_for(format)


@pytest.mark.parametrize("format", WRITERS)
def test_a_format_that_is_named_counts_and_not_the_name_of_the_file(tmp_path: Path, format: Format) -> None:
    path = tmp_path / "export.dat"
    path.write_bytes(WRITERS[format](birds_for(format)))
    assert list(read_documents([path], options=ReadOptions(format))) == birds_for(format)
    with pytest.raises(SourceError, match=r"export\.dat: its name does not tell what it holds; say --format"):
        list(read_documents([path]))


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_csv_of_other_separators_is_understood_from_its_header(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "birds.csv"
    path.write_bytes(b"\xef\xbb\xbf" + write_csv(BIRDS, delimiter))
    assert list(read_documents([path])) == BIRDS


def test_every_document_and_every_bad_record_knows_its_source_and_line(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_bytes(b'id,text\n\n1,"two\nlines"\n2,x,y\n3,x\n')
    (tmp_path / "b.tsv").write_bytes(b"1\tx\n\n2\n")
    (tmp_path / "b.jsonl").write_bytes(b'\n{"id": 1, "text": "x"}\n{')
    sources = [tmp_path / name for name in ("b.csv", "b.tsv", "b.jsonl")]
    places = [(Path(record.source).name, record.line) for record in read_documents(sources)]
    csv_lines, tsv_lines, jsonl_lines = (3, 5, 6), (1, 3), (2, 3)
    expected = {"b.csv": csv_lines, "b.tsv": tsv_lines, "b.jsonl": jsonl_lines}
    assert places == [(name, line) for name, lines in expected.items() for line in lines]


@pytest.mark.parametrize("format", get_args(Format))
@pytest.mark.parametrize("suffix", PACKED)
def test_only_formats_of_lines_are_read_out_of_an_archive(tmp_path: Path, format: Format, suffix: str) -> None:
    path = tmp_path / f"birds{suffix}"
    path.write_bytes(PACKERS[suffix](b""))
    if format in LINE_FORMATS:
        assert not list(read_documents([path], options=ReadOptions(format)))
    else:
        with pytest.raises(SourceError, match="unpack it first"):
            list(read_documents([path], options=ReadOptions(format)))


@pytest.mark.parametrize("suffix", [".bz2", ".xz"])
def test_a_damaged_archive_glued_to_a_whole_one_is_an_error_and_not_the_end(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"birds.jsonl{suffix}"
    path.write_bytes(PACKERS[suffix](write_jsonl(BIRDS)) + b"damage")
    with pytest.raises(SourceError, match="damaged or incomplete"):
        list(read_documents([path]))


def test_zeros_between_xz_archives_are_padding(tmp_path: Path) -> None:
    path = tmp_path / "birds.jsonl.xz"
    path.write_bytes(b"".join(lzma.compress(write_jsonl([bird])) + bytes(8) for bird in BIRDS))
    assert list(read_documents([path])) == BIRDS


def test_a_later_source_that_is_missing_is_noticed_before_the_first_is_read(tmp_path: Path) -> None:
    path = tmp_path / "birds.jsonl"
    path.write_bytes(write_jsonl(BIRDS))
    with pytest.raises(SourceError, match=r"gone\.jsonl: No such file"):
        next(read_documents([path, tmp_path / "gone.jsonl"]))


def test_what_can_be_read_only_once_is_not_counted(tmp_path: Path) -> None:
    assert count_records(["/dev/null"], ReadOptions("jsonl")) is None


def test_every_format_and_ending_stands_in_the_documented_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sources.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", page, re.MULTILINE)
    documented = {ending: format for format, endings in rows for ending in re.findall(r"`(\.\w+)`", endings)}
    assert documented == SUFFIXES
    assert {format for format, _ in rows} == set(get_args(Format))


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=12)
LINE = st.sampled_from([b"", b" ", b"\t", b"{", b"\xff", b'"', b'a,"b', b"1,2,3", b'{"id": 1, "text": "x"}', b"1\tx"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    lines=st.lists(LINE | CELL.map(str.encode).map(lambda cell: cell.replace(b"\n", b" ")), max_size=12),
    format=st.sampled_from(["jsonl", "tsv"]),
)
def test_lines_are_documents_bad_records_or_blank_and_nothing_else(lines: list[bytes], format: Format) -> None:
    header = {"jsonl": b"", "tsv": b"id\ttext"}[format]
    records = list(read_documents(["-"], io.BytesIO(b"\n".join([header, *lines])), ReadOptions(format)))
    assert len(records) == sum(bool(line.strip()) for line in lines)
    assert [record.line for record in records] == [number for number, line in enumerate(lines, start=2) if line.strip()]


def height(record: Document | BadRecord) -> int:
    """How many lines of its file a record stands on."""
    text = record.record if isinstance(record, BadRecord) else record.id + record.text
    return 1 + text.count("\n")


@settings(max_examples=200, deadline=None)
@given(lines=st.lists(LINE, max_size=12))
def test_every_line_of_any_csv_belongs_to_exactly_one_record_or_is_blank(lines: list[bytes]) -> None:
    content = b"\n".join([b"id,text", *lines])
    records = list(read_documents(["-"], io.BytesIO(content), ReadOptions("csv")))
    covered = [number for record in records for number in range(record.line, record.line + height(record))]
    assert len(covered) == len(set(covered))
    assert {number for number, line in enumerate(lines, start=2) if line.strip()} <= set(covered)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.lists(CELL, min_size=1, max_size=4), max_size=8))
def test_every_row_of_a_well_formed_csv_is_a_document_a_bad_record_or_blank(rows: list[list[str]]) -> None:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([["id", "text"], *rows])
    records = list(read_documents(["-"], io.BytesIO(file.getvalue().encode()), ReadOptions("csv")))
    assert len(records) == sum(any(map(str.strip, row)) for row in rows)
    documents = [record for record in records if isinstance(record, Document)]
    whole = [row for row in rows if len(row) == 2 and row[0] and row[1].strip()]
    assert [(each.id, each.text) for each in documents] == [(row[0], row[1]) for row in whole]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(content=st.binary(max_size=300), format=st.sampled_from(get_args(Format)))
def test_no_bytes_whatever_raise_anything_but_a_source_error(content: bytes, format: Format) -> None:
    try:
        list(read_documents(["-"], io.BytesIO(content), ReadOptions(format)))
    except SourceError:
        assert format in ("csv", "tsv", "parquet")  # their first line, or their end, told of no columns


@pytest.mark.parametrize(
    ("module", "suffix", "extra"),
    [("pyarrow", "parquet", "parquet"), ("selectolax", "html", "html"), ("pypdf", "pdf", "pdf")],
)
def test_a_missing_extra_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, suffix: str, extra: str
) -> None:
    (tmp_path / f"birds.{suffix}").write_bytes(b"x")
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, f"indexer.sources.{suffix}", raising=suffix == "parquet")
    monkeypatch.setitem(sys.modules, module, None)
    for read in (
        lambda: list(read_documents([tmp_path / f"birds.{suffix}"])),
        lambda: count_records([tmp_path / f"birds.{suffix}"]),
    ):
        with pytest.raises(SourceError, match=rf"pip install 'dupmae-search\[{extra}\]'"):
            read()
