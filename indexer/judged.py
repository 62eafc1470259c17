"""A judged split as training records: each query with the passages that were judged right for it.

Queries, judgements and collection are joined on disk, in a temporary database, so that memory does not grow with the
queries.
"""

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from indexer.documents import Document, read_judgements, read_queries
from indexer.negatives import normal, text_key
from model.lines import SourceError
from model.records import Example, Records, to_line

_TABLES = """
    pragma journal_mode = off;
    pragma synchronous = off;
    create table judgement (query text, document text, grade integer, primary key (query, document)) without rowid;
    create table query (number integer primary key, id text unique, text text);
    create table hidden (document text primary key) without rowid;
    create table wanted (document text primary key) without rowid;
    create table passage (document text primary key, text text) without rowid;
"""
_WANTED = """
    insert into wanted select document from judgement where grade > 0 union select document from hidden
"""
_KEEP = "insert into passage select ?1, ?2 where exists (select 1 from wanted where document = ?1)"
_NAMELESS = """
    select count(distinct judgement.query), min(judgement.query)
    from judgement left join query on query.id = judgement.query where query.id is null
"""
_RIGHT = """
    select query.number, query.text, passage.text
    from query
    join judgement on judgement.query = query.id and judgement.grade > 0
    join passage on passage.document = judgement.document
    order by query.number, passage.document
"""


class Judged(NamedTuple):
    """What could be made of a split.

    Attributes:
        records: Queries and positives.
        unanswered: Judged queries without a passage of grade above 0 in the collection; they are left out.
        hidden: Keys of the passages that may not be negatives, see `text_key`.
    """

    records: Records
    unanswered: int
    hidden: frozenset[int]


@contextmanager
def open_judged(
    folder: Path, split: str, documents: Iterable[Document], *, hide: Sequence[str] = ()
) -> Iterator[Judged]:
    """The records of a BEIR folder's split in the order of its queries; positives in order of their ids.

    Args:
        folder: Queries and judgements.
        split: Name of the judgements, as in `qrels/<split>.tsv`.
        documents: The collection; streamed.
        hide: Splits whose judged passages, of whatever grade, may not be negatives.

    Raises:
        SourceError: A file is missing or damaged, or a judged query has no text.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "records.jsonl")
        with closing(sqlite3.connect(Path(scratch, "tables"))) as tables:
            _fill(tables, folder, split, documents, hide)
            unanswered = _write(tables, file)
            hidden = tables.execute("select text from passage where document in (select document from hidden)")
            keys = frozenset(text_key(normal(text)) for (text,) in hidden)
        with Records(file) as records:
            yield Judged(records, unanswered, keys)


def _fill(
    tables: sqlite3.Connection, folder: Path, split: str, documents: Iterable[Document], hide: Sequence[str]
) -> None:
    tables.executescript(_TABLES)
    tables.executemany("insert or replace into judgement values (?, ?, ?)", read_judgements(folder, split))
    tables.executemany("insert or replace into query (id, text) values (?, ?)", read_queries(folder))
    for name in hide:
        judged = ((document,) for _, document, _ in read_judgements(folder, name))
        tables.executemany("insert or ignore into hidden values (?)", judged)
    count, first = tables.execute(_NAMELESS).fetchone()
    if count:
        raise SourceError(f"{folder}: no text for {count} judged queries, the first being {first!r}")
    tables.execute(_WANTED)
    tables.executemany(_KEEP, ((document.id, document.passage) for document in documents))


def _write(tables: sqlite3.Connection, out: Path) -> int:
    """Write the records, returning the number of judged queries that got none."""
    (unanswered,) = tables.execute("select count(distinct query) from judgement").fetchone()
    with out.open("w", encoding="utf-8") as lines:
        for (_, query), rows in groupby(tables.execute(_RIGHT), key=lambda row: row[:2]):
            print(to_line(Example(query, tuple(passage for _, _, passage in rows))), file=lines)
            unanswered -= 1
    return int(unanswered)
