"""What measurements leave behind for figures and pages: small JSON files that say what was measured, on what and how.

They are committed, in `docs/figures/data/`. The models here are their format; `figures.py` reads them back.
"""

import math
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue

from model.encoder import Encoder
from model.estimate import Estimate

DIGITS = 5
"""Significant digits that are written; the intervals are wider by far."""

Z = 1.959964
"""Standard deviations on either side of a mean within which 95 % of the normal law lie."""


class Result(BaseModel):
    """What every result says of itself.

    Attributes:
        command: That made it; of a path that is not below the current folder only the last part.
        date: Of the end of the measurement, UTC.
        machine: Processor, cores this process may use, and threads a query is encoded with.
    """

    model_config = ConfigDict(extra="forbid")

    command: str
    date: str
    machine: str
    model: str
    precision: str
    fingerprint: str


class Milliseconds(BaseModel):
    """Of one query: median and 95th percentile by the clock, and median of the processor's time in all threads.

    The clock counts waiting for a busy machine, the processor's time does not.
    """

    median: float
    p95: float
    processor: float


class Row(BaseModel):
    """One way to keep and to ask, measured.

    Attributes:
        ranking: `fused`, or the side that ranks alone.
        k_document: Most terms that a document keeps; None where no term counts.
        k_query: Most terms that a query keeps; None where no term counts, 0 for all it has.
        is_default: Whether these are the artifact's own.
        document_terms: Terms a document did keep, mean over all collections' documents.
        query_terms: The same for queries.
        document_bytes: 4 for each dense dimension and 4 + 4 for each kept term, mean.
        disk_bytes: A document's share of the blocks that a whole embedded build takes on disk, without its text.
        ndcg: nDCG@10 by exact scores, by collection.
        minus_default: Its paired difference to the row that is the default, by collection.
        mean_ndcg: Mean of the collections.
        mean_minus_default: The same for the difference.
        search_ms: Time of one search in an embedded index, encoding not counted.
    """

    ranking: str
    k_document: int | None
    k_query: int | None
    is_default: bool = False
    document_terms: float
    query_terms: float
    document_bytes: float
    disk_bytes: float | None = None
    ndcg: dict[str, Estimate]
    minus_default: dict[str, Estimate]
    mean_ndcg: Estimate
    mean_minus_default: Estimate
    search_ms: Milliseconds | None = None


class Truncation(Result):
    """Of `truncate.py`.

    Attributes:
        queries: Judged queries, by collection.
        documents: By collection.
        indexed: Points of the index that was timed.
        timed_queries: Queries that were timed, each as often as `rounds` says.
        encode_ms: Time of encoding one query, alone.
    """

    queries: dict[str, int]
    documents: dict[str, int]
    indexed: int
    timed_queries: int = 0
    rounds: int = 0
    encode_ms: Milliseconds | None = None
    rows: list[Row]


class Histogram(BaseModel):
    """`counts[n]` values lie between `edges[n]` and `edges[n + 1]`; those beyond the ends are counted at the ends."""

    edges: list[float]
    counts: list[int]


class SideBalance(BaseModel):
    """One side of the score, over queries.

    Attributes:
        right: Its part of the score of the right passage.
        wrong: Its part of the score of the wrong one.
        agrees: Share of the queries in which it alone puts the right passage above that wrong one.
    """

    right: Histogram
    wrong: Histogram
    agrees: Estimate


class CollectionBalance(BaseModel):
    """What the sides add, for every judged query: to the right passage of the best fused score, and to the best passage
    that was not judged right.

    Attributes:
        share: Of CLS in the score of the right passage.
        mean_share: Its mean.
        agrees: As in `SideBalance`, by both sides together.
    """

    queries: int
    share: Histogram
    mean_share: Estimate
    agrees: Estimate
    cls: SideBalance
    ot: SideBalance


class Balance(Result):
    """Of `balance.py`."""

    collections: dict[str, CollectionBalance]


class Contrast(BaseModel):
    """One set of pairs.

    Attributes:
        title: For people.
        chance: What blind guessing gets.
        is_detail: Whether the pairs are part of another set of the same group.
        accuracy: Share of the pairs in which the right passage has the higher score, an equal score being half of it,
            by ranking.
    """

    title: str
    pairs: int
    chance: float = 0.5
    is_detail: bool = False
    accuracy: dict[str, Estimate]


class Limits(Result):
    """Of `limits.py`: sets by name, in groups."""

    groups: dict[str, dict[str, Contrast]]


class AblationRow(BaseModel):
    """A model that was trained otherwise. `group` is what was changed and `row` to what.

    Attributes:
        ndcg: nDCG@10 by ranking, mean over seeds.
        minus_base: Its fused score less that of the row which it differs from in one factor, with the same seeds.
        seeds: Its fused score, seed by seed.
    """

    group: str
    row: str
    ndcg: dict[str, Estimate | float]
    minus_base: Estimate | None = None
    seeds: list[float] = []


R = TypeVar("R", bound=Result)


def facts(encoder: Encoder) -> dict[str, str]:
    """The fields that all results share, as they are now."""
    manifest = encoder.artifact.manifest
    return {
        "command": command(sys.argv),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": machine(),
        "model": manifest.name,
        "precision": manifest.precision,
        "fingerprint": encoder.fingerprint,
    }


def command(words: Sequence[str]) -> str:
    """What was typed, without where this machine keeps its files.

    >>> command(["runs/truncate.py", "model/pretrained", "/data/beir/scifact:test", "--rounds", "3"])
    'python -m runs.truncate model/pretrained scifact:test --rounds 3'
    """
    script, *rest = words
    shown = [Path(word).name if Path(word).is_absolute() or word.startswith("..") else word for word in rest]
    return " ".join(["python -m", f"runs.{Path(script).stem}", *shown])


def machine() -> str:
    """The processor and how many of its cores this process may use."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else platform.machine()}, {cores} cores"


def write(result: BaseModel, out: Path) -> None:
    """Write a result so that what is there is whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    shorter = type(result).model_validate(short(result.model_dump()))
    partial.write_text(shorter.model_dump_json(indent=1) + "\n", encoding="utf-8")
    partial.replace(out)


def read(kind: type[R], file: Path) -> R | None:
    """A result that was written, or None where there is none."""
    return kind.model_validate_json(file.read_bytes()) if file.exists() else None


def short(value: JsonValue) -> JsonValue:
    """All numbers with few digits.

    >>> short({"a": [0.123456789, 12345678]})
    {'a': [0.12346, 12345678]}
    """
    if isinstance(value, Mapping):
        return {key: short(each) for key, each in value.items()}
    if isinstance(value, list):
        return [short(each) for each in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) and math.isfinite(value) else value


def mean_of(estimates: Iterable[Estimate]) -> Estimate:
    """The mean of independent means, such as those of several collections; each end's errors add up in squares.

    >>> mean_of([Estimate(mean=0.5, low=0.2, high=0.7), Estimate(mean=0.7, low=0.3, high=0.7)])
    Estimate(mean=0.6, low=0.35, high=0.7)
    """
    means, below, above = zip(
        *((each.mean, each.mean - each.low, each.high - each.mean) for each in estimates), strict=True
    )
    mean, count = sum(means) / len(means), len(means)
    return Estimate(mean=mean, low=mean - math.hypot(*below) / count, high=mean + math.hypot(*above) / count)


def wilson(share: float, count: int) -> Estimate:
    """A share of `count` trials with Wilson's 95 % interval, which holds for few trials and near 0 and 1.

    >>> short(wilson(0.9, 30).model_dump())
    {'mean': 0.9, 'low': 0.74379, 'high': 0.9654}
    """
    centre = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return Estimate(mean=share, low=max(0.0, min(share, centre - half)), high=min(1.0, max(share, centre + half)))
