"""Tables: headers, ragged rows and wrong quotes. A bad row is named and costs nothing but itself."""

import io
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import JsonValue

from indexer.documents import BadRecord, Document
from indexer.sources import Field, ReadOptions, count_records, parse_columns, read_documents
from indexer.sources.tables import read_csv
from model.lines import MAX_LINE_BYTES, SourceError

Columns = dict[Field, tuple[str, ...]]


def read(format: Any, content: bytes, *pairs: str) -> list[Document | BadRecord]:
    options = ReadOptions(format, parse_columns(pairs))
    return list(read_documents(["-"], io.BytesIO(content), options))


def reasons(records: list[Document | BadRecord]) -> list[str]:
    return [record.reason for record in records if isinstance(record, BadRecord)]


def test_passages_of_ms_marco_have_no_header() -> None:
    content = b'0\tThe "presence" of\n1\tmore\n'
    assert read("tsv", content) == [Document("0", text='The "presence" of'), Document("1", text="more")]


def test_documents_of_ms_marco_have_a_url_and_a_title() -> None:
    assert read("tsv", b"D1\thttp://x\tGulls\tThey nest.\n") == [Document("D1", "Gulls", "They nest.", "http://x")]


def test_a_header_of_tsv_is_seen_by_its_names_or_by_those_that_are_mapped() -> None:
    assert read("tsv", b"id\ttext\ttitle\n1\tx\ty\n") == [Document("1", "y", "x")]
    assert read("tsv", b"pid\tpassage\n1\tx\n", "id=pid", "text=passage") == [Document("1", text="x")]


def test_columns_without_a_header_are_counted() -> None:
    assert read("tsv", b"x\t1\t2015\n", "id=2", "text=1") == [Document("1", text="x", metadata={"3": "2015"})]
    with pytest.raises(SourceError, match=r"3 columns and no header.*--map id=1 --map text=2"):
        read("tsv", b"x\t1\t2015\n")


def test_a_header_counts_as_no_record(tmp_path: Path) -> None:
    contents = {"a.tsv": b"id\ttext\n1\tx\n", "b.tsv": b"1\tx\n", "c.tsv": b"", "a.csv": b"", "b.csv": b"id,text\n"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert [count_records([tmp_path / name]) for name in contents] == [1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("format", "header", "pairs", "message"),
    [
        ("csv", "url,body", [], r"no column _id or id; say --map id=COLUMN; columns: url, body"),
        ("csv", "id,body", [], r"no column title or text; say --map text=COLUMN; columns: id, body"),
        ("csv", "id,body", ["text=bdy"], r"no column 'bdy' for text; columns: id, body"),
        ("csv", "id,text", ["text=text.plain"], r"no column 'text\.plain' for text"),
        ("tsv", "id\tbody", ["text=bdy"], r"no column 'bdy' for text; columns: id, body"),
        ("csv", "id,id,text", [], r"two columns are called 'id'"),
        ("csv", '"id,text', [], r"line 1: no header: a quote is not closed"),
        ("csv", "\udcff,text", [], r"line 1: no header: not UTF-8"),
    ],
)
def test_columns_that_make_no_document_are_an_error_with_those_there_are(
    format: str, header: str, pairs: list[str], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        read(format, header.encode("utf-8", "surrogateescape") + b"\n1,x\n", *pairs)


def test_a_ragged_row_says_how_many_cells_it_has() -> None:
    records = read("csv", b'id,text\n1,x,"y\nz"\n2,x\n3\n')
    assert records[1] == Document("2", text="x")
    assert reasons(records) == ["3 cells where there are 2 columns", "1 cells where there are 2 columns"]
    assert isinstance(records[0], BadRecord)
    assert records[0].record == '1,x,"y\nz"'


def test_rows_of_empty_cells_as_spreadsheets_leave_them_are_blank() -> None:
    assert read("csv", b"id,text\n1,x\n,\n , \n") == [Document("1", text="x")]


def test_a_quote_that_is_not_closed_costs_its_row_and_not_the_rest() -> None:
    records = read("csv", b'id,text\n1,"open\n2,x\n3,y\n')
    assert records[1:] == [Document("2", text="x"), Document("3", text="y")]
    assert records[0] == BadRecord("-", 2, "a quote is not closed", '1,"open')


def test_a_quote_in_the_middle_of_a_quoted_cell_is_refused_and_not_guessed() -> None:
    (bad, good) = read("csv", b'id,text\n1,"he said "no" twice"\n2,5" pipe\n')
    assert isinstance(bad, BadRecord)
    assert bad.record == '1,"he said "no" twice"'
    assert good == Document("2", text='5" pipe')


def test_a_row_that_is_not_utf8_is_bad_as_a_whole_over_all_its_lines() -> None:
    records = read("csv", b'id,text\n1,"a\n\xff,b\nc"\n2,x\n')
    assert records == [BadRecord("-", 2, "not UTF-8: byte 0xff at 0", '1,"a\n\\xff,b\nc"'), Document("2", text="x")]


def test_a_row_of_more_than_a_line_may_hold_is_bad_and_reading_goes_on_behind_its_first_line() -> None:
    long = b"x" * (MAX_LINE_BYTES // 2) + b"\n"
    records = read("csv", b'id,text\n1,"' + long + b"2," + long + b'3,"' + long + b"4,y\n")
    assert reasons(records) == ["longer than 16 MiB", "a quote is not closed"]
    assert [record.id for record in records if isinstance(record, Document)] == ["2", "4"]


def test_a_line_that_is_too_long_is_bad_in_every_table() -> None:
    long = b"1,\t" + b"x" * MAX_LINE_BYTES
    for format in ("csv", "tsv"):
        assert reasons(read(format, b"id\ttext\n" + long + b"\n")) == ["longer than 16 MiB"]


def test_a_cell_of_metadata_is_an_object_of_json() -> None:
    records = read("tsv", b'id\ttext\tmetadata\n1\tx\t{"year": 2015}\n2\tx\t\n3\tx\tabc\n')
    assert records[:2] == [Document("1", text="x", metadata={"year": 2015}), Document("2", text="x")]
    assert reasons(records) == ["not JSON: Expecting value at column 1"]


def test_a_csv_without_an_end_is_read_in_constant_memory() -> None:
    def rows(count: int) -> Iterator[bytes]:
        yield b"id,text"
        for number in range(count):
            yield b'%d,"some text\nover two lines"' % number

    def peak(count: int) -> int:
        tracemalloc.start()
        for _ in read_csv((line for row in rows(count) for line in row.split(b"\n")), "-", {}):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    def least_peak(count: int) -> int:  # other threads of this process are traced too, and only add
        return min(peak(count) for _ in range(9))

    assert least_peak(20_000) < least_peak(1000) + 20_000


def parquet(tmp_path: Path, **columns: Any) -> Path:
    path = tmp_path / "birds.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_columns_of_parquet_become_what_json_holds(tmp_path: Path) -> None:
    path = parquet(
        tmp_path,
        id=[7],
        text=pa.array([b"x"], pa.binary()),
        seen=pa.array([datetime(2015, 1, 2, tzinfo=UTC)]),
        weight=[Decimal("1.50")],
        where=[{"lat": 1.5, "tags": ["sea"]}],
        nothing=pa.nulls(1),
    )
    metadata: dict[str, JsonValue] = {
        "seen": "2015-01-02T00:00:00+00:00",
        "weight": 1.5,
        "where": {"lat": 1.5, "tags": ["sea"]},
        "nothing": None,
    }
    assert list(read_documents([path])) == [Document("7", text="x", metadata=metadata)]


def test_a_bad_row_of_parquet_is_named_and_spoils_no_other(tmp_path: Path) -> None:
    text = pa.array([b"good", b"\xff\xfe", b"good", b"good"], pa.binary()).view(pa.string())
    path = parquet(tmp_path, id=["a", "b", "c", "d"], text=text, price=[1.0, 1.0, float("nan"), 1.0])
    records = list(read_documents([path]))
    assert [record.id for record in records if isinstance(record, Document)] == ["a", "d"]
    bad = [record for record in records if isinstance(record, BadRecord)]
    assert [(record.line, record.reason) for record in bad] == [
        (2, "not UTF-8: byte 0xff at 0"),
        (3, "NaN is not a JSON number"),
    ]
    assert '"id": "b"' in bad[0].record
    assert count_records([path]) == 4


def test_nested_columns_of_parquet_can_be_mapped(tmp_path: Path) -> None:
    path = parquet(tmp_path, doc=[{"key": "a", "body": "x", "lang": "en"}])
    columns: Columns = {"id": ("doc.key",), "text": ("doc.body",)}
    expected = Document("a", text="x", metadata={"doc": {"lang": "en"}})
    assert list(read_documents([path], options=ReadOptions(columns=columns))) == [expected]
    with pytest.raises(SourceError, match=r"no column 'doc\.txt' for text; columns: doc, doc\.key, doc\.body"):
        list(read_documents([path], options=ReadOptions(columns=columns | {"text": ("doc.txt",)})))


@pytest.mark.parametrize("kept", [0, 3, 100, -5])
def test_a_damaged_parquet_file_is_an_error_with_its_name(tmp_path: Path, kept: int) -> None:
    path = parquet(tmp_path, id=["a"], text=["x"])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SourceError, match=r"birds\.parquet: damaged or no Parquet"):
        list(read_documents([path]))


def test_parquet_is_not_read_from_standard_input() -> None:
    with pytest.raises(SourceError, match="read from its end"):
        read("parquet", b"")
