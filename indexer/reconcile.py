"""A store held against its ledger, point by point: what is missing, and what nobody wrote down."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from indexer.filling import UPSERT_POINTS
from indexer.ledger import Ledger, ledger_path, plan_of
from indexer.points import point_id
from indexer.store import Build, Engine, Store, StoreError


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


def reconciled(engine: Engine, build: Build, data: Path, *, mend: bool) -> Differences:
    """Compare a build with its ledger, and mend it if that is wanted.

    Raises:
        StoreError: There is no ledger of it here, it has live writes and shall be mended, or the engine failed.
        BuildLocked: It is being made, or it shall be mended and is open elsewhere.
    """
    path = ledger_path(data, build.index, build.id)
    if (plan := plan_of(path)) is None:
        raise StoreError(f"{path}: no ledger of build {build.id} here; build the index again to have one.")
    if mend and engine.journal(build.index).position():
        raise StoreError(
            f"Index {build.index} has live writes, which no ledger knows and mending would remove; build it again "
            "instead."
        )
    with Ledger(path, plan) as ledger, closing(engine.open(build.index, build.id, write=mend)) as store:
        found = reconcile(store, ledger)
        if mend:
            remove(store, ledger, found)
    return found


def remove(store: Store, ledger: Ledger, found: Differences) -> None:
    """Remove strays, and forget documents that have lost points, so that the next run indexes them again."""
    for at in range(0, len(found.strays), UPSERT_POINTS):
        store.delete(found.strays[at : at + UPSERT_POINTS])
    store.flush()
    ledger.forget(found.missing)


def _expected(ledger: Ledger) -> Iterator[tuple[str, str]]:
    return ((point_id(entry.id, number), entry.id) for entry in ledger.entries() for number in range(entry.passages))
