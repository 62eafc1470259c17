"""What the commands show people: a progress bar, and tables of builds and figures."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from indexer.build import Progress as Watch
from indexer.filling import Tally
from indexer.store import Build

T = TypeVar("T")

if TYPE_CHECKING:
    from indexer.cost import Cost
    from indexer.evaluate import Evaluation
    from indexer.mine import Tally as MiningTally
    from indexer.release import Release
    from indexer.verify import Verification
    from model.estimate import Estimate


@contextmanager
def show_progress(total: int | None) -> Iterator[Watch]:
    """A bar on standard error, with the rate in documents per second, and the time left where `total` is known."""
    with _bar("encoding", total) as (bar, task):

        def watch(tally: Tally) -> None:
            elapsed = bar.tasks[0].elapsed or 0
            rate = f"{tally.encoded / elapsed:.0f}/s" if elapsed and tally.stage == "encoding" else ""
            bar.update(task, description=tally.stage, completed=tally.read, rate=rate)

        yield watch


@contextmanager
def show_count(what: str, total: int | None) -> Iterator[Callable[[int, int], None]]:
    """A bar as `show_progress` has it. What is yielded is told how many are done now, and how many were before."""
    with _bar(what, total) as (bar, task):

        def watch(done: int, before: int) -> None:
            elapsed = bar.tasks[0].elapsed or 0
            bar.update(task, completed=done + before, rate=f"{done / elapsed:.0f}/s" if elapsed else "")

        yield watch


@contextmanager
def show_reading(records: Iterable[T]) -> Iterator[Iterator[T]]:
    """Records as they come, counted on standard error."""
    with _bar("reading", None) as (bar, task):

        def counted() -> Iterator[T]:
            for record in records:
                bar.advance(task)
                yield record
            bar.update(task, description="encoding a sample")

        yield counted()


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[tuple[Progress, TaskID]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield bar, bar.add_task(what, total=total, rate="")


def describe(build: Build, published: bool, dead_letters: Path | None) -> str:
    """What came of a build, in one line."""
    parts = [f"Build {build.id} of index {build.index}: {_contents(build)}"]
    if build.unchanged:
        parts.append(f"{build.unchanged:,} of them unchanged")
    if build.truncated:
        parts.append(f"{build.truncated:,} passages not read to their end")
    if build.dead:
        parts.append(f"{build.dead:,} bad records in {dead_letters}")
    parts.append("published" if published else f"not published (dupmae index publish {build.id} --index {build.index})")
    return ", ".join(parts)


def builds_table(builds: Iterable[tuple[Build, bool, bool]]) -> Table:
    """One line a build, with whether it is published and whether a process is making it now."""
    names = ("build", "state", "documents", "bad", "nDCG@10", "change", "model")
    table = Table(
        *(Column(name, no_wrap=name != "state") for name in names), Column("source", overflow="fold"), box=None
    )
    for build, published, running in builds:
        state = "published" if published else build.state if build.state == "ready" else _under_way(build, running)
        counts = (f"{build.documents:,}", f"{build.dead:,}")
        source = f"{build.source} ({build.reason})" if build.reason else build.source
        table.add_row(build.id, state, *counts, *_judged(build), build.fingerprint[:12], source)
    return table


def _under_way(build: Build, running: bool) -> str:
    """The state of a build that is not ready: how far it is, and how fast, or that nobody works on it."""
    far = f" {build.read:,}" + (f" of {build.total:,}" if build.total else "") if build.read else ""
    if build.state == "failed":
        return f"failed{far}"
    if not running:
        return f"stopped{far}"
    rate = f", {build.rate:.0f}/s" if build.rate else ""
    left = build.seconds_left
    return f"{build.state}{far}{rate}" + (f", {timedelta(seconds=round(left))} left" if left is not None else "")


def cost_table(cost: "Cost") -> Table:
    """What an index will take, one thing a line."""
    machines = "this machine" if cost.workers == 1 else f"{cost.workers} machines like this one"
    rows = {
        "documents": f"{cost.documents:,}" + (f", and {cost.bad:,} bad records" if cost.bad else ""),
        "passages": f"{cost.passages:,}",
        "tokens": f"{cost.tokens:,}",
        "longer than the window": f"{cost.longer:.1%} of the documents",
        "disk": f"{cost.disk_bytes / 1e6:,.0f} MB; twice that while a second build is made",
        "RAM to serve": f"{cost.serving_ram_bytes / 1e6:,.0f} MB",
        "RAM to build": f"{cost.build_ram_bytes / 1e6:,.0f} MB",
        "encoding": f"{cost.encoding_hours:.2f} h by {machines}, {cost.documents_per_s:.0f} documents/s each",
        "indexing": f"{cost.indexing_hours:.2f} h by one machine",
        "from": f"{cost.sampled:,} documents that were encoded just now",
    }
    table = Table(box=None, show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def verification_table(verification: "Verification") -> Table:
    """One line a check."""
    table = Table("check", "", Column("found", overflow="fold"), "expected", box=None)
    for check in verification.checks:
        table.add_row(check.name, "ok" if check.ok else "FAILED", check.value, check.limit)
    return table


def release_lines(release: "Release") -> list[str]:
    """What the gate measured, and which builds went."""
    lines = []
    if judgement := release.judgement:
        figures = (judgement.candidate, judgement.published, judgement.change)
        now, was, change = (table["nDCG@10"] for table in figures)
        lines.append(
            f"nDCG@10 {now.mean:.3f}, before {was.mean:.3f}, change {change.mean:+.3f} "
            f"[{change.low:+.3f}, {change.high:+.3f}] on {judgement.count:,} queries ({judgement.queries})"
        )
    if release.note:
        lines.append(f"Note: {release.note}.")
    if probe := release.build.probe:
        own = probe.own["ndcg_at_10"]
        lines.append(
            f"While it is served it is asked {len(probe.queries)} queries ({probe.name}); nDCG@10 now {own.mean:.3f} "
            f"[{own.low:.3f}, {own.high:.3f}]"
        )
    if release.removed:
        lines.append(f"Removed, beyond the builds that are kept (--keep): {', '.join(release.removed)}")
    return lines


def _judged(build: Build) -> tuple[str, str]:
    """nDCG@10 as it was when the build was judged, and its change with the interval; empty if it never was."""
    figures = {name.rpartition(": ")[2]: values for name, values in build.judged.items()}
    if "nDCG@10" not in figures or "nDCG@10 change" not in figures:
        return "", ""
    mean, low, high = figures["nDCG@10 change"]
    return f"{figures['nDCG@10'][0]:.3f}", f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def evaluation_lines(evaluation: "Evaluation") -> list[RenderableType]:
    """The figures of an evaluation: rankings, what the fused score adds to each, and how exact the engine was."""
    exactness, rates = evaluation.exactness, evaluation.rates
    searches = ", ".join(f"{mode} {rate:.0f}" for mode, rate in rates.searches_per_s.items())
    return [
        f"{evaluation.collection}, {evaluation.split}: {_contents(evaluation)}, {evaluation.queries:,} "
        f"queries; {evaluation.model} ({evaluation.precision}, {evaluation.fingerprint[:12]}); mean [95 % interval]",
        _figures("", evaluation.systems),
        _figures("fused minus", evaluation.fused_minus),
        f"Against exact scores of all points, {exactness.queries:,} queries at depth {evaluation.depth}: overlap@10 "
        f"{exactness.overlap_at_10:.4f}, same order {exactness.same_order:.2%}, score off by at most "
        f"{exactness.largest_score_error:.1e}, from the sum of its parts by {exactness.largest_parts_gap:.1e}",
        f"Searches per second: {searches}; queries encoded per second: {rates.queries_encoded_per_s:.0f}"
        + (f"; documents indexed per second: {rates.documents_per_s:.0f}" if rates.documents_per_s else ""),
    ]


def mining_lines(out: Path, tally: "MiningTally", draw: int, left_out: Mapping[str, int]) -> list[str]:
    """What came of mining `draw` negatives for each query."""
    per_query = tally.negatives / max(tally.queries, 1)
    lines = [f"{out}: {tally.queries:,} queries, {tally.negatives:,} negatives, {per_query:.1f} a query"]
    if tally.resumed:
        lines.append(f"Before that {tally.resumed:,} queries of a run that was broken off; no number here counts them.")
    if tally.too_close:
        share = tally.too_close / tally.hits
        lines.append(f"Too close to a positive: {tally.too_close:,} of {tally.hits:,} hits ({share:.1%}).")
    counts = {
        f"Fewer than {draw} negatives": tally.short,
        "No negative": tally.bare,
        "A query that the model has no vector for": tally.unknown,
        "No positive that the model has a vector for, and so no margin": tally.unscored,
    }
    lines += [f"{what}: {count:,} queries." for what, count in counts.items() if count]
    return lines + [f"Left out: {count:,} {what}." for what, count in left_out.items()]


def _contents(counted: "Build | Evaluation") -> str:
    passages = f" in {counted.passages:,} passages" if counted.passages > counted.documents else ""
    return f"{counted.documents:,} documents{passages}"


def _figures(title: str, systems: "dict[str, dict[str, Estimate]]") -> Table:
    measures = next(iter(systems.values()))
    table = Table(title, *measures, box=None)
    for name, figures in systems.items():
        table.add_row(name, *(f"{each.mean:.4f} [{each.low:.4f}, {each.high:.4f}]" for each in figures.values()))
    return table
