"""Whether a build may take the place of the published one, and in words why not.

The rule of judging is in `finds_less`: with enough queries the interval of the difference decides; with few it can
exclude nothing, so there the mean decides, and doubt speaks for what is published. Beside it stand rules that need no
search: a build that verification found broken, one that lost too many documents, one of too many bad records.
"""

from dataclasses import dataclass

from indexer.judgement import Judgement
from indexer.store import Build
from indexer.verify import Verification
from model.estimate import Estimate

ENOUGH_QUERIES = 200
"""From here on the interval of the difference decides alone."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a new build may be worse by.

    Attributes:
        tolerance: Loss of nDCG@10 that is put up with.
        max_shrink: Share of the published build's documents that may be missing.
        max_bad: Bad records that are put up with.
    """

    tolerance: float = 0.005
    max_shrink: float = 0.2
    max_bad: int = 100


def objections(
    candidate: Build,
    published: Build | None,
    verification: Verification,
    judgement: Judgement | None,
    limits: Limits,
) -> list[str]:
    """Why the candidate may not be published, each with figures and remedy; empty if it may."""
    found = [
        f"verification failed at {check.name}: {check.value}, expected {check.limit}; build the index again"
        for check in verification.failed
    ]
    if candidate.dead > limits.max_bad:
        found.append(
            f"{candidate.dead:,} records became no document, more than {limits.max_bad:,}; repair them or raise "
            "--max-bad"
        )
    if published and candidate.documents < (1 - limits.max_shrink) * published.documents:
        lost = 1 - candidate.documents / published.documents
        found.append(
            f"it holds {candidate.documents:,} documents where the published build has {published.documents:,}, "
            f"{lost:.0%} fewer (limit {limits.max_shrink:.0%}); look for a source that was cut off, or raise "
            "--max-shrink"
        )
    if judgement and finds_less(judgement.change["nDCG@10"], judgement.count, limits.tolerance):
        found.append(_worse(judgement, limits.tolerance))
    return found


def finds_less(change: Estimate, queries: int, tolerance: float) -> bool:
    """Whether a build finds too much less than the published one.

    It does if the whole interval of the change lies below -tolerance. With fewer than `ENOUGH_QUERIES` it also does if
    the mean alone lies there: so few queries cannot tell such a loss from chance, nor exclude it.

    >>> finds_less(Estimate(mean=-0.02, low=-0.03, high=-0.01), queries=300, tolerance=0.005)
    True
    >>> finds_less(Estimate(mean=-0.02, low=-0.05, high=0.01), queries=300, tolerance=0.005)
    False
    >>> finds_less(Estimate(mean=-0.02, low=-0.05, high=0.01), queries=30, tolerance=0.005)
    True
    """
    return change.high < -tolerance or (queries < ENOUGH_QUERIES and change.mean < -tolerance)


def _worse(judgement: Judgement, tolerance: float) -> str:
    change, was, now = (table["nDCG@10"] for table in (judgement.change, judgement.published, judgement.candidate))
    few = f", too few to exclude it (under {ENOUGH_QUERIES})" if judgement.count < ENOUGH_QUERIES else ""
    return (
        f"it finds less: nDCG@10 {now.mean:.3f} where the published build has {was.mean:.3f} on {judgement.count:,} "
        f"queries ({judgement.queries}), change {change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}], allowed "
        f"-{tolerance:g}{few}; look at the model and at what changed in the texts, or raise --tolerance"
    )
