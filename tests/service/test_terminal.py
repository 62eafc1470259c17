"""What `dupmae search` shows and what it asks, with a real index behind it."""

import io
import json
import sys
from collections.abc import Iterator

import pytest
from rich.console import Console

from indexer.store import InvalidFilter
from model.lines import SourceError
from service.asking import Options, answer, parse_filters, read_queries
from service.searcher import Searcher, open_searchers
from service.settings import Settings
from service.terminal import Session, open_console, show_answer

OPTIONS = Options("fused", 3, None, explain=True)
FIELDS = {
    "metadata.lang": "keyword",
    "metadata.year": "integer",
    "metadata.price": "float",
    "metadata.public": "bool",
    "metadata.date": "datetime",
    "metadata.notes": "text",
}


@pytest.fixture
def searcher(settings: Settings) -> Iterator[Searcher]:
    with open_searchers(settings) as searchers:
        yield searchers.open("default")


def shown(searcher: Searcher, *, width: int, query: str = "compress a file") -> str:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=width, highlight=False)
    show_answer(console, answer(searcher, query, OPTIONS))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_shows_colours_bars_and_what_each_word_adds(searcher: Searcher) -> None:
    text = shown(searcher, width=100)
    assert "\x1b[33m▇" in text  # the tiny model scores by words almost alone
    assert "compress" in text
    assert "cls" in text


@pytest.mark.parametrize("width", [40, 100])
def test_no_line_is_wider_than_the_terminal(searcher: Searcher, width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, highlight=False)
    show_answer(console, answer(searcher, "compress a file", OPTIONS))
    assert isinstance(console.file, io.StringIO)
    plain = console.file.getvalue().replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert max(map(len, plain.splitlines())) <= width


def test_no_color_is_honoured(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" not in shown(searcher, width=100)


def test_what_a_program_reads_is_plain_and_unfolded(
    searcher: Searcher, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    show_answer(open_console(), answer(searcher, "a compressed file", OPTIONS))
    out = capsys.readouterr().out
    assert "How to compress a file, and how to read a compressed file." in out
    assert "\x1b" not in out
    assert "▇" not in out


def test_many_queries_are_answered_a_line_each_and_a_refused_one_is_passed_over(
    searcher: Searcher, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Session(searcher, OPTIONS, as_json=True).ask_all(["the sea", "", "the king"])
    out, err = capsys.readouterr()
    assert [len(json.loads(line)["results"]) for line in out.splitlines()] == [3, 3]
    assert "holds no word" in err


def test_nothing_found_is_told_of(searcher: Searcher, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options("fused", 3, parse_filters(["metadata.lang=fr"], searcher.build.fields), explain=False)
    assert not Session(searcher, options, as_json=False).ask("the sea")
    assert "Nothing found" in capsys.readouterr().out


def piped(monkeypatch: pytest.MonkeyPatch, content: bytes) -> list[str]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    return list(read_queries())


def test_each_line_of_the_input_that_says_something_is_a_query(monkeypatch: pytest.MonkeyPatch) -> None:
    assert piped(monkeypatch, "one\n\n  two \nthée".encode()) == ["one", "two", "thée"]


@pytest.mark.parametrize(("content", "said"), [(b"\n \n", "no query"), (b"one\n\xff\n", "not UTF-8")])
def test_input_that_cannot_be_asked_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, content: bytes, said: str
) -> None:
    with pytest.raises(SourceError, match=said):
        piped(monkeypatch, content)


@pytest.mark.parametrize(
    ("given", "condition"),
    [
        ("metadata.lang=a=b", {"key": "metadata.lang", "match": {"value": "a=b"}}),
        ("metadata.year=1990", {"key": "metadata.year", "match": {"value": 1990}}),
        ("metadata.year=..2000", {"key": "metadata.year", "range": {"lte": 2000}}),
        ("metadata.price=.5..1", {"key": "metadata.price", "range": {"gte": 0.5, "lte": 1.0}}),
        ("metadata.public=True", {"key": "metadata.public", "match": {"value": True}}),
        ("metadata.date=2020-01-01..", {"key": "metadata.date", "range": {"gte": "2020-01-01"}}),
        ("metadata.notes=two words", {"key": "metadata.notes", "match": {"text": "two words"}}),
        ('{"has_id": ["a"]}', {"has_id": ["a"]}),
    ],
)
def test_a_filter_is_typed_as_its_field_is(given: str, condition: object) -> None:
    assert parse_filters([given], FIELDS) == {"must": [condition]}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [("lang", "FIELD=VALUE"), ("=x", "FIELD=VALUE"), ("metadata.year=x", "'x'"), ("{", "JSON"), ("x=1", "x")],
)
def test_a_filter_that_makes_no_sense_is_refused_by_name(searcher: Searcher, given: str, said: str) -> None:
    fields = searcher.build.fields | {"metadata.year": "integer"}
    with pytest.raises(InvalidFilter, match=said):
        answer(searcher, "sea", Options("fused", 3, parse_filters([given], fields), explain=False))
