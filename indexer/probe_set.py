"""What a build is asked while it is served, and how well it answered when it was released.

It is kept among the facts of the build, 12 KB for a hundred queries, so it goes wherever they go: to either engine,
into a backup, back with a rollback. Each query keeps its own figures, so that what a service measures later is of the
same queries.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from model.estimate import Estimate, estimate

TOP = 10
"""Documents that a query is answered with, and measured on: a first page."""


class Figures(NamedTuple):
    """How well one query was answered, each from 0 to 1.

    Attributes:
        ndcg_at_10: nDCG@10.
        recall_at_10: Share of the right answers among the first ten.
        ot_share: Share of the best document's score that words gave; 0 where nothing was found.
    """

    ndcg_at_10: float
    recall_at_10: float
    ot_share: float


class ProbeQuery(BaseModel):
    """A query, its right answers, and how well the build answered it when it was released.

    Attributes:
        text: What is asked.
        right: Grade by document id; one at least is above 0.
        own: The build's own figures.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str
    right: dict[str, int]
    own: Figures


class ProbeSet(BaseModel):
    """The queries of one build.

    Attributes:
        name: Of the set that they are from, for people.
        queries: In the order in which they are asked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    queries: list[ProbeQuery] = Field(min_length=1)

    @cached_property
    def own(self) -> dict[str, Estimate]:
        """The build's own figures, by the names of `Figures`."""
        return estimates([query.own for query in self.queries])


def estimates(figures: Sequence[Figures]) -> dict[str, Estimate]:
    """Means with 95 % intervals, by the names of `Figures`.

    An interval reaches down by 3/n at least: what n queries out of n agree on may still be untrue of that share, and a
    bootstrap of equal values, which has no width, does not know (Hanley and Lippman-Hand, 1983, the rule of three).

    >>> estimates([Figures(1.0, 1.0, 0.5)] * 100)["ndcg_at_10"]
    Estimate(mean=1.0, low=0.97, high=1.0)
    """
    least = 3 / len(figures)
    found = estimate(np.array(figures, np.float64))
    wide = [each.model_copy(update={"low": max(0.0, min(each.low, each.mean - least))}) for each in found]
    return dict(zip(Figures._fields, wide, strict=True))
