"""What an index can be built from: files of records, files that are documents, and folders of either.

Every format ends in the same records, so one rule says what becomes of their fields. Readers stream: one line, one
batch of rows or one file is in memory, however large the source. What cannot be a document becomes a `BadRecord` in the
same stream, so nothing is dropped unseen; only a source that cannot be read at all is an error.
"""

from indexer.sources.inputs import STDIN, standard_input
from indexer.sources.options import Field, Format, ReadOptions, parse_columns
from indexer.sources.read import count_records, read_documents, unread_files

__all__ = [
    "STDIN",
    "Field",
    "Format",
    "ReadOptions",
    "count_records",
    "parse_columns",
    "read_documents",
    "standard_input",
    "unread_files",
]
