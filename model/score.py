"""A teacher's scores for training records, which `finetune` distils from (the paper's third stage).

Any folder of `model.teacher` will do. Scores are written as they are learned from, so they are raw: logits of a
cross-encoder, inner products of a bi-encoder, times `scale`. A softmax over one query's passages must be neither flat
nor a single peak; cosines lie between -1 and 1, hence their default of 20 (a temperature of 0.05).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from model.records import Example, Records, Rewritten, rewrite

Pair = tuple[str, str]
"""A query and a passage."""

Pooling = Literal["mean", "cls", "max"]
Similarity = Literal["cosine", "dot"]

DIGITS = 6
"""After the point: more than a float32 of this size has."""


class ScoreOptions(BaseModel):
    """How a teacher scores; what is not set is what its folder says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: float | None = Field(None, gt=0, description="Factor of the scores; 20 for cosines, 1 for all else.")
    max_query_tokens: int = Field(64, ge=4, description="Longest query.")
    max_tokens: int | None = Field(
        None, ge=8, description="Longest passage, of a cross-encoder the longest pair; 256, or the teacher's own limit."
    )
    pooling: Pooling | None = Field(None, description="For a bi-encoder whose folder does not say it.")
    similarity: Similarity | None = Field(None, description="Of a bi-encoder; what its folder says, else cosine.")
    query_prompt: str | None = Field(None, description="Put before queries; what the folder says, else nothing.")
    document_prompt: str | None = Field(None, description="Put before passages; the same.")
    batch: int = Field(64, ge=1, description="Records at once; a passage they share is encoded once.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Of products; auto: bf16 on a GPU, fp32 elsewhere. CPUs with AMX are quicker in bf16."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one.")


@dataclass(frozen=True)
class Teacher:
    """Something that scores pairs.

    Attributes:
        what: It is, in a few words.
        digest: SHA-256 of its weights and configuration.
        device: Where it scores: `cpu` or `cuda`, whose scores differ a little.
        score: Finite scores for pairs, one each.
    """

    what: str
    digest: str
    device: str
    score: Callable[[Sequence[Pair]], list[float]]


class Agreement(NamedTuple):
    """How many pairs of a positive and a negative of one record there are, and in how many the positive scores more."""

    pairs: int
    right: int


def score(teacher: Teacher, records: Records, out: Path, options: ScoreOptions, *, restart: bool = False) -> Rewritten:
    """Write the records with the teacher's scores, replacing those they have; see `records.rewrite`.

    Args:
        teacher: Loaded with these options.
        records: What to score; streamed.
        out: A new file; the same call goes on with what a broken run left.
        options: Noted beside an unfinished file, which is gone on with by equal ones only.
        restart: Begin anew.

    Raises:
        TrainingError: The teacher gave NaN or infinity.
        FileExistsError: `out` is there already, or left unfinished by a run with another teacher, source or options.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    chosen = options.model_dump(exclude={"batch", "device"})
    made_by = {"source": records.digest, "teacher": teacher.digest, "device": teacher.device, **chosen}
    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        return rewrite(
            bar.track(records),
            out,
            lambda examples: scored(teacher, examples),
            batch=options.batch,
            made_by=made_by,
            restart=restart,
        )


def scored(teacher: Teacher, examples: Sequence[Example]) -> list[Example]:
    """The examples with the teacher's scores.

    >>> by_length = Teacher("length", "", "cpu", lambda pairs: [float(len(passage)) for _, passage in pairs])
    >>> [example] = scored(by_length, [Example("q", ("ab",), ("c",))])
    >>> example.positive_scores, example.negative_scores
    ((2.0,), (1.0,))
    """
    found = iter(teacher.score([(e.query, text) for e in examples for text in (*e.positives, *e.negatives)]))

    def take(texts: Sequence[str]) -> tuple[float, ...]:
        return tuple(round(value, DIGITS) for value in islice(found, len(texts)))

    return [
        replace(example, positive_scores=take(example.positives), negative_scores=take(example.negatives))
        for example in examples
    ]


def agreement(examples: Iterable[Example]) -> Agreement:
    """How far scores and labels say the same.

    >>> agreement([Example("q", ("a", "b"), ("c",), (2.0, 0.5), (1.0,))])
    Agreement(pairs=2, right=1)
    """
    counts = Counter(
        positive > negative
        for example in examples
        for positive in example.positive_scores
        for negative in example.negative_scores
    )
    return Agreement(counts.total(), counts[True])
