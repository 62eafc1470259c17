"""How sources are read: which format they have, and which of their columns are the fields of a document."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

Format = Literal["jsonl", "tsv", "csv", "parquet", "text", "markdown", "html", "pdf"]
"""The first four hold many records; a file of the others is one document."""

Field = Literal["id", "title", "text", "url"]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What reading is told.

    Attributes:
        format: Of every file, whatever its name; None goes by the names. In a folder it says which files are read.
        columns: What a field is made of, joined in this order. A column may be a path such as `body.plain`. A field
            that is not here is the column of its own name; see `indexer.sources.mapping.NAMES`.
    """

    format: Format | None = None
    columns: Mapping[Field, tuple[str, ...]] = field(default_factory=dict)


def parse_columns(pairs: Iterable[str]) -> dict[Field, tuple[str, ...]]:
    """The columns that `--map NAME=COLUMN[,COLUMN...]` names.

    >>> parse_columns(["id=url", "text=abstract,body"])
    {'id': ('url',), 'text': ('abstract', 'body')}

    Raises:
        ValueError: Not of this form, no such field, or a field that is given twice.
    """
    columns: dict[Field, tuple[str, ...]] = {}
    for pair in pairs:
        name, _, names = pair.partition("=")
        if name not in get_args(Field) or not all(names.split(",")):
            raise ValueError(f"{pair!r} is not NAME=COLUMN, such as text=abstract,body; names: id, title, text, url")
        if name in columns:
            raise ValueError(f"{name} is mapped twice; give all its columns at once: {name}=COLUMN,COLUMN")
        columns[cast(Field, name)] = tuple(names.split(","))
    return columns
