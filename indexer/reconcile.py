"""A store held against its ledger, point by point: what is missing, and what nobody wrote down."""

from collections.abc import Iterator
from typing import NamedTuple

from indexer.ledger import Ledger
from indexer.points import point_id
from indexer.store import Store


class Differences(NamedTuple):
    """How a store differs from its ledger.

    Attributes:
        missing: Documents that have lost a point or more.
        strays: Points of no document of the ledger.
    """

    missing: list[str]
    strays: list[str]


def reconcile(store: Store, ledger: Ledger) -> Differences:
    """Compare every point, in memory that does not grow with them."""
    ledger.expect(_expected(ledger))
    strays = [point.id for point in store.scroll() if not ledger.found(point.id)]
    return Differences(ledger.lacking(), strays)


def mend(store: Store, ledger: Ledger, found: Differences) -> None:
    """Remove strays, and forget documents that have lost points, so that the next run indexes them again."""
    store.delete(found.strays)
    store.flush()
    ledger.forget(found.missing)


def _expected(ledger: Ledger) -> Iterator[tuple[str, str]]:
    return ((point_id(entry.id, number), entry.id) for entry in ledger.entries() for number in range(entry.passages))
