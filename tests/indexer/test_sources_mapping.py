"""Columns become fields as they are told to, and whatever is left becomes metadata."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from indexer.checks import MAX_DEPTH
from indexer.documents import Document
from indexer.sources import parse_columns
from indexer.sources.mapping import make_document
from tests.indexer.brute_force import nested


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (["id=link"], Document("http://x", "t", "b", "", {"id": 1})),
        (["url=link"], Document("1", "t", "b", "http://x")),
        (["id=link", "url=link"], Document("http://x", "t", "b", "http://x", {"id": 1})),
        (["text=title,text"], Document("1", "t", "t\n\nb", "", {"link": "http://x"})),
        (["title=text", "text=title"], Document("1", "b", "t", "", {"link": "http://x"})),
        (["id=id,title"], Document("1/t", "t", "b", "", {"link": "http://x"})),
        (["title=nowhere"], Document("1", "", "b", "", {"title": "t", "link": "http://x"})),
    ],
    ids=str,
)
def test_mapped_columns_are_fields_and_the_others_metadata(pairs: list[str], expected: Document) -> None:
    record: dict[str, JsonValue] = {"id": 1, "title": "t", "text": "b", "link": "http://x"}
    assert make_document(record, parse_columns(pairs)) == expected


def test_paths_lead_into_objects_and_leave_the_rest_of_them() -> None:
    record: dict[str, JsonValue] = {"key": 1, "doc": {"body": {"plain": "x"}, "lang": "en"}, "a.b": "dotted"}
    columns = parse_columns(["id=key", "text=doc.body.plain", "title=a.b"])
    assert make_document(record, columns) == Document("1", "dotted", "x", "", {"doc": {"lang": "en"}})
    assert record["doc"] == {"body": {"plain": "x"}, "lang": "en"}  # what was read is not changed


def test_a_mapped_id_that_is_missing_names_its_column() -> None:
    with pytest.raises(ValueError, match="no id: expected a string or an integer in isbn"):
        make_document({"id": 1, "text": "x"}, parse_columns(["id=isbn"]))
    with pytest.raises(ValueError, match="in book, page"):
        make_document({"book": "b", "page": None, "text": "x"}, parse_columns(["id=book,page"]))


def test_contents_stand_for_an_empty_text_only() -> None:
    assert make_document({"id": "a", "text": "", "contents": "x"}, {}).text == "x"
    assert make_document({"id": "a", "text": "y", "contents": "x"}, {}).metadata == {"contents": "x"}


def test_a_value_that_metadata_would_hide_is_refused() -> None:
    with pytest.raises(ValueError, match="lang stands in metadata and beside it"):
        make_document({"id": "a", "text": "x", "lang": "en", "metadata": {"lang": "de"}}, {})
    same = make_document({"id": "a", "text": "x", "lang": "en", "metadata": {"lang": "en"}}, {})
    assert same.metadata == {"lang": "en"}


def test_metadata_that_no_engine_reads_again_is_refused() -> None:
    deepest = nested(MAX_DEPTH - 1)
    assert make_document({"id": "a", "text": "x", "more": deepest}, {}).metadata == {"more": deepest}
    for record in ({"more": nested(MAX_DEPTH)}, {"metadata": nested(MAX_DEPTH + 1)}):
        with pytest.raises(ValueError, match=f"metadata is nested more than {MAX_DEPTH} deep"):
            make_document({"id": "a", "text": "x", **record}, {})


@pytest.mark.parametrize("pair", ["", "id", "id=", "id=a,", "name=a", "=a"])
def test_what_is_no_mapping_is_refused_with_its_form(pair: str) -> None:
    with pytest.raises(ValueError, match=r"is not NAME=COLUMN, such as text=abstract,body; names: id, title, text"):
        parse_columns([pair])


def test_a_field_is_mapped_once() -> None:
    with pytest.raises(ValueError, match="text is mapped twice"):
        parse_columns(["text=a", "text=b"])


NAMES = st.sampled_from(["id", "_id", "title", "text", "contents", "url", "a", "b.c"])


@given(st.dictionaries(NAMES, st.text("xyz", min_size=1, max_size=3)), st.sampled_from(["a", "b.c", "title", "url"]))
def test_no_value_of_a_record_is_lost_however_it_is_mapped(record: dict[str, str], column: str) -> None:
    record = {"id": "1", "text": "x"} | record
    for columns in ({}, parse_columns([f"title={column}"])):
        document = make_document(record, columns)
        kept = [document.id, document.title, document.text, document.url, *map(str, document.metadata.values())]
        assert set(filter(None, kept)) == set(record.values())
