"""A training record and its line: a query, passages that answer it, passages that do not, perhaps a teacher's scores.

The format is FlagEmbedding's: `{"query": str, "pos": [str, ...], "neg": [str, ...], "pos_scores": [float, ...],
"neg_scores": [float, ...]}`. What no loop can learn from is left out here and counted, so that all that read records
agree on what is in a file.
"""

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import JsonValue

from model.lines import MAX_LINE_BYTES, SourceError, reason, refuse_number

FORM = '{"query": "...", "pos": ["..."], "neg": ["..."]}'


@dataclass(frozen=True, slots=True)
class Example:
    """One training record.

    Attributes:
        query: What is asked.
        positives: Passages that answer it.
        negatives: Passages that do not.
        positive_scores: A teacher's, one for each positive; or none.
        negative_scores: The same for the negatives.
        others: Whatever else the line says (`id`, `prompt`, `pos_id`, ...): kept on writing.
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    positive_scores: tuple[float, ...] = ()
    negative_scores: tuple[float, ...] = ()
    others: Mapping[str, JsonValue] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        assert len(self.positive_scores) in (0, len(self.positives)), "a score for each positive, or none"
        assert len(self.negative_scores) in (0, len(self.negatives)), "a score for each negative, or none"


def to_line(example: Example) -> str:
    """The record as JSON, without a newline.

    >>> to_line(Example("q", ("a",), ("b",), (2.5,), (-1.0,), {"id": 7}))
    '{"query": "q", "pos": ["a"], "neg": ["b"], "pos_scores": [2.5], "neg_scores": [-1.0], "id": 7}'
    """
    record: dict[str, Any] = {"query": example.query, "pos": example.positives, "neg": example.negatives}
    if example.positive_scores or example.negative_scores:
        record |= {"pos_scores": example.positive_scores, "neg_scores": example.negative_scores}
    return json.dumps({**record, **example.others}, ensure_ascii=False)


def from_line(line: bytes, where: str, skipped: Counter[str]) -> Example | None:
    """The record of a line; None for an empty line, and for a record that training cannot use, which is counted.

    Blank texts and texts that a record repeats are left out and counted as well; scores and other lists that hold one
    thing for each text (`pos_id`, `neg_id`) go with them.

    Args:
        line: JSON in UTF-8.
        where: Its place, for a message.
        skipped: Gets the number of things left out, by what they are.

    Raises:
        SourceError: It is no such record.
    """
    if not line or line.isspace():
        return None
    try:
        record = _parse(line)
        query = _query(record)
        positives, negatives = _side(record, "pos"), _side(record, "neg")
        if not positives.texts:
            raise ValueError("pos is missing or empty")
    except (ValueError, OverflowError, RecursionError) as error:
        raise SourceError(f"{where}: want {FORM}: {reason(error)}") from error
    positives = _cleaned(positives, (), skipped)
    negatives = _cleaned(negatives, positives.texts, skipped)
    if not query.strip() or not positives.texts:
        skipped["records without a query" if positives.texts else "records without a positive"] += 1
        return None
    ours = {"query", "pos", "neg", "pos_scores", "neg_scores"}
    others = {key: value for key, value in record.items() if key not in ours}
    return Example(
        query,
        positives.texts,
        negatives.texts,
        positives.scores,
        negatives.scores,
        {**others, **positives.others, **negatives.others},
    )


def _parse(line: bytes) -> dict[str, JsonValue]:
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"longer than {MAX_LINE_BYTES // 2**20} MiB")
    text = line.decode("utf-8-sig")
    record = json.loads(text, parse_constant=refuse_number)
    if not isinstance(record, dict):
        raise ValueError(f"{text:.40} is not a JSON object")
    if "\\u" in text:  # only an escape can smuggle in half of a surrogate pair, which no tokenizer takes
        json.dumps(record, ensure_ascii=False).encode()
    return record


def _query(record: Mapping[str, JsonValue]) -> str:
    query = record.get("query")
    if not isinstance(query, str):
        raise ValueError(f"query is {_shown(query)}, not a string")
    return query


class _Side(NamedTuple):
    """Positives or negatives: texts, their scores or none, and lists of other things that are one for each text."""

    texts: tuple[str, ...]
    scores: tuple[float, ...]
    others: Mapping[str, JsonValue]


def _side(record: Mapping[str, JsonValue], name: str) -> _Side:
    texts = record.get(name)
    if texts is None:
        texts = []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} is {_shown(texts)}, not a list of strings")
    scores_name = f"{name}_scores"
    prefix, scores = f"{name}_", _scores(record.get(scores_name), scores_name, len(texts))
    parallel = {
        key: value
        for key, value in record.items()
        if key.startswith(prefix) and key != scores_name and isinstance(value, list) and len(value) == len(texts)
    }
    return _Side(tuple(map(str, texts)), scores, parallel)


def _scores(scores: JsonValue, name: str, wanted: int) -> tuple[float, ...]:
    if scores is None:
        return ()
    if not isinstance(scores, list) or not all(type(score) in (int, float) for score in scores):
        raise ValueError(f"{name} is {_shown(scores)}, not a list of numbers")
    if len(scores) != wanted:
        raise ValueError(f"{name} holds {len(scores)} numbers for {wanted} texts")
    finite = tuple(float(score) for score in scores)  # type: ignore[arg-type]  # checked above
    if not all(map(math.isfinite, finite)):
        raise ValueError(f"{name} is {_shown(scores)}, of which one is not finite")
    return finite


def _cleaned(side: _Side, taken: Collection[str], skipped: Counter[str]) -> _Side:
    """The side without blank texts and without those that it repeats or that are `taken`."""
    seen, kept = set(taken), list[int]()
    for position, text in enumerate(side.texts):
        if not text.strip():
            skipped["blank texts"] += 1
        elif text in seen:
            skipped["repeated texts"] += 1
        else:
            seen.add(text)
            kept.append(position)
    if len(kept) == len(side.texts):
        return side
    others = {key: [values[i] for i in kept] for key, values in side.others.items() if isinstance(values, list)}
    return _Side(tuple(side.texts[i] for i in kept), tuple(side.scores[i] for i in kept if side.scores), others)


def _shown(value: JsonValue) -> str:
    return f"{json.dumps(value):.60}"
