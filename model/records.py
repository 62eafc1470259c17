"""Training records: a query, passages that answer it and passages that do not, in FlagEmbedding's JSON lines."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model.lines import SourceError, read_lines


@dataclass(frozen=True, slots=True)
class Example:
    """One training record: a query, passages that answer it, passages that do not."""

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()


def read_examples(path: Path) -> Iterator[Example]:
    """Records in FlagEmbedding's format: `{"query": str, "pos": [str, ...], "neg": [str, ...]}` a line.

    Raises:
        SourceError: The file is missing or damaged, or a line is not such a record.
    """
    for number, line in enumerate(read_lines(path), 1):
        try:
            record = json.loads(line)
            yield _example(record["query"], record["pos"], record.get("neg") or [])
        except (ValueError, KeyError, TypeError) as error:
            form = '{"query": "...", "pos": ["..."], "neg": ["..."]}'
            raise SourceError(f"{path}:{number}: want {form}: {error!r}") from error


def _example(query: object, positives: list[object], negatives: list[object]) -> Example:
    if not positives:
        raise ValueError("pos is empty")
    for texts in (positives, negatives):
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise TypeError("pos and neg are lists of strings")
    return Example(str(query), tuple(map(str, positives)), tuple(map(str, negatives)))
