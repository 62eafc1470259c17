"""What `dupmae search` asks: one query or many, with the model loaded once, and filters as people type them."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter

from pydantic import JsonValue

from indexer.store import FieldType, Filter, InvalidFilter, Mode
from model.lines import SourceError
from service.render import render, respond
from service.schemas import SearchResponse
from service.searcher import Searcher

PROMPT = "search> "


@dataclass(frozen=True, slots=True)
class Options:
    """What every query of a session is asked with."""

    mode: Mode
    limit: int
    filter: Filter | None
    explain: bool


def answer(searcher: Searcher, query: str, options: Options) -> SearchResponse:
    """What the service would answer.

    Raises:
        QueryRefused: The query has no vector.
        StoreError: As `Store.search`.
    """
    found = searcher.search(query, mode=options.mode, limit=options.limit, filter=options.filter)
    began = perf_counter()
    results = render(
        searcher, query, found.encoding, found.hits, with_=["parts", "explain"] if options.explain else ["parts"]
    )
    took = {**found.took, "render": perf_counter() - began}
    return respond(searcher, found.encoding, results, mode=options.mode, complete=found.complete, took=took)


def read_queries() -> Iterator[str]:
    """The lines of standard input that say something; at a terminal, those typed at a prompt until Ctrl-D.

    Raises:
        SourceError: The input holds no query, or is not UTF-8.
    """
    return _typed() if sys.stdin.isatty() and sys.stdout.isatty() else _piped()


def parse_filters(given: Iterable[str], fields: Mapping[str, FieldType]) -> Filter | None:
    """The filter that holds all of `given`, each either `FIELD=VALUE` or JSON in the grammar of the API.

    A range is `FIELD=FROM..TO`, either end of which may be missing.

    Raises:
        InvalidFilter: Neither of the two, or a value that is not of the field's type.

    >>> parse_filters(["metadata.year=1990..", "metadata.lang=en"], {"metadata.year": "integer"})
    {'must': [{'key': 'metadata.year', 'range': {'gte': 1990}}, {'key': 'metadata.lang', 'match': {'value': 'en'}}]}
    """
    must = [_json(one) if one.lstrip().startswith("{") else _condition(one, fields) for one in given]
    return {"must": must} if must else None


def _typed() -> Iterator[str]:
    import readline  # noqa: F401 - gives `input` line editing and a history

    while True:
        try:
            line = input(PROMPT).strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line:
            yield line


def _piped() -> Iterator[str]:
    asked = False
    try:
        for line in (raw.decode().strip() for raw in sys.stdin.buffer):
            if line:
                asked = True
                yield line
    except UnicodeDecodeError as error:
        raise SourceError(f"standard input is not UTF-8: {error}") from error
    if not asked:
        raise SourceError("no query: give one as an argument, or one a line on standard input")


def _json(text: str) -> JsonValue:
    try:
        parsed: JsonValue = json.loads(text)
    except ValueError as error:
        raise InvalidFilter(f"--filter {text!r} is not JSON: {error}") from error
    return parsed


def _condition(text: str, fields: Mapping[str, FieldType]) -> JsonValue:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise InvalidFilter(f"--filter {text!r} is neither FIELD=VALUE nor JSON; declared fields: {', '.join(fields)}")
    kind = fields.get(key, "keyword")
    low, dots, high = value.partition("..")
    if dots and kind in {"integer", "float", "datetime"}:
        bounds = {"gte": low, "lte": high}
        return {"key": key, "range": {name: _value(key, end, kind) for name, end in bounds.items() if end}}
    return {"key": key, "match": {"text" if kind == "text" else "value": _value(key, value, kind)}}


def _value(key: str, text: str, kind: FieldType) -> JsonValue:
    try:
        match kind:
            case "integer":
                return int(text)
            case "float":
                return float(text)
            case "bool":
                return {"true": True, "false": False}[text.lower()]
    except (ValueError, KeyError) as error:
        raise InvalidFilter(f"--filter {key}: {text!r} is not of its type, {kind}") from error
    return text
