"""Rows of a Parquet file, one batch of them at a time; columns of times, decimals and bytes become what JSON holds."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from indexer.documents import BadRecord, Document
from indexer.sources.mapping import Columns, check_columns, make_document, to_json
from model.lines import SourceError, reason

_BATCH_ROWS = 256
_BUFFER_BYTES = 2**20  # of a column chunk; without it one row group is read whole


def read_parquet(path: Path, name: str, columns: Columns) -> Iterator[Document | BadRecord]:
    """The rows of a file, numbered from 1.

    Raises:
        SourceError: Damaged, no Parquet, columns that documents cannot be made of, or the extra is missing.
    """
    with _opened(path, name) as file:
        check_columns(list(_paths(file.schema_arrow)), columns, name)
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
            for row, values in _rows(batch):
                number += 1
                try:
                    if isinstance(values, Exception):
                        raise values
                    yield make_document(to_json(values), columns, name, number)
                except (ValueError, OverflowError, RecursionError) as error:
                    yield BadRecord(name, number, reason(error), _legible(row))


def count_parquet(path: Path, name: str) -> int:
    """Rows as the end of the file tells them.

    Raises:
        SourceError: As `read_parquet`.
    """
    with _opened(path, name) as file:
        return int(file.metadata.num_rows)


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Any]:
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise SourceError(f"{name}: Parquet needs an extra: pip install 'dupmae-search[parquet]'") from error
    try:
        with ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{name}: damaged or no Parquet ({error}); fetch or write it again") from error


def _rows(batch: Any) -> Iterator[tuple[Any, dict[str, Any] | Exception]]:
    """Each row of a batch as a batch of its own, and its values: one that is not UTF-8 must not spoil the others."""
    whole = _values(batch)
    for position in range(batch.num_rows):
        row = batch.slice(position, 1)
        values = _values(row) if isinstance(whole, Exception) else whole[position : position + 1]
        yield row, values if isinstance(values, Exception) else values[0]


def _values(batch: Any) -> list[dict[str, Any]] | Exception:
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except (ValueError, OverflowError) as error:  # text that is not UTF-8, times that Python has no value for
        return error
    return rows


def _legible(row: Any) -> str:
    """A bad record: JSON, with whatever that cannot hold as text."""
    cells = {name: _legible_cell(column) for name, column in zip(row.schema.names, row.columns, strict=True)}
    return json.dumps(cells, default=str, ensure_ascii=False)


def _legible_cell(column: Any) -> object:
    try:
        return column[0].as_py()
    except (ValueError, OverflowError):
        return " ".join(str(column).split())


def _paths(fields: Iterable[Any], within: str = "") -> Iterator[str]:
    """The names of columns, and the paths to what is nested in them."""
    for field in fields:
        yield within + field.name
        if hasattr(field.type, "fields"):  # a struct
            yield from _paths(field.type.fields, f"{within}{field.name}.")
