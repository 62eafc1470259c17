"""Pictures of what a model's terms cost and give, and of how its two sides share a score."""

from collections.abc import Callable, Sequence
from itertools import cycle, groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model.estimate import Estimate
from model.plots import COLOURS, GRID, GROUND, INK, dress, tint
from runs.results import Balance, Histogram, Row, SideBalance, Truncation

FUSED, OT, CLS, OTHER = COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[3]
SIDES = {"cls": ("CLS only", CLS, "D"), "ot": ("OT only", OT, "s")}
WIDTH = 8.8
"""Inches; with the dots of an inch below, what a README has room for."""

Place = Callable[[Row], float]


def draw_bytes(result: Truncation) -> Figure:
    """Quality against bytes a document, of all rows that differ in what a document keeps."""
    figure = new_figure(3.4)
    left, right = figure.subplots(1, 2)
    rows = by_document(result)
    _line(left, rows, _bytes, FUSED, "fused, by k_document")
    _label(left, rows, _bytes, "k_document", FUSED)
    _sides(left, result, _bytes)
    if result.rounds:
        disk = [row.disk_bytes or 0 for row in rows]
        left.plot(
            disk, _quality(rows), ":", color=FUSED, linewidth=1.2, label="the same, as an index on disk", zorder=2
        )
    dress(left, f"quality, mean of {_count(result)}", "bytes a document", "nDCG@10")
    _legend(left)
    for name, marker in zip(result.documents, cycle("osD^vP")):
        differences = [row.minus_default[name].mean for row in rows]
        right.plot(
            list(map(_bytes, rows)), differences, color="#888888", linewidth=0.9, marker=marker, markersize=3.5,
            markerfacecolor=GROUND, label=name.partition(":")[0], zorder=2,
        )  # fmt: skip
    _whiskers(right, rows, _bytes, lambda row: row.mean_minus_default, FUSED, "mean, 95 % interval")
    right.axhline(0, color=INK, linewidth=0.8, zorder=1)
    dress(right, f"difference to {default_of(result).k_document} terms, paired", "bytes a document", "nDCG@10")
    _legend(right)
    return figure


def draw_times(result: Truncation) -> Figure:
    """Quality against the time of a search: all rows, and the fused ones alone."""
    figure = new_figure(3.4)
    left, right = figure.subplots(1, 2)
    lines = (("k_document", by_document(result), FUSED), ("k_query", by_query(result), OTHER))
    for k, rows, colour in lines:
        for axes in (left, right):
            _line(axes, rows, _median_ms, colour, f"fused, by {k}")
        _label(right, rows, _median_ms, k, colour)
    for row in (default_of(result), *_alone(result)):
        assert row.search_ms, "a row was not timed"
        times = [row.search_ms.median, row.search_ms.p95]
        left.plot(times, [row.mean_ndcg.mean] * 2, color=INK, linewidth=0.8, marker="|", zorder=2)
    _sides(left, result, _median_ms)
    left.set_xlim(left=0)
    dress(left, "time of a search, to its 95th percentile", "ms", "nDCG@10")
    _legend(left)
    dress(right, "the same, fused only", "ms, median", "")
    _legend(right)
    return figure


def draw_balance(result: Balance) -> Figure:
    """Shares of CLS by collection; parts of right and wrong passages over all, each collection weighing the same."""
    figure = new_figure(3.0)
    shares, *parts = figure.subplots(1, 3)
    for (name, each), colour in zip(result.collections.items(), cycle(COLOURS)):
        label = f"{name.partition(':')[0]} ({each.mean_share.mean:.2f})"
        shares.plot(*_density(each.share), color=colour, linewidth=1.5, label=label)
    shares.axvline(0.5, color=INK, linewidth=0.8, linestyle=":")
    dress(shares, "share of CLS in a right score", "CLS / (CLS + OT)", "density")
    shares.set_ylim(top=1.5 * shares.get_ylim()[1])  # room for the names
    _legend(shares, title="collection (mean)")
    for axes, name, colour in zip(parts, ("cls", "ot"), (CLS, OT), strict=True):
        sides: list[SideBalance] = [getattr(each, name) for each in result.collections.values()]
        x, right = _density(*(side.right for side in sides))
        _, wrong = _density(*(side.wrong for side in sides))
        axes.fill_between(x, right, color=tint(colour), linewidth=0, label="right passage", zorder=2)
        axes.plot(x, right, color=colour, linewidth=1.5)
        axes.plot(x, wrong, color=INK, linewidth=1.5, linestyle="--", label="best wrong one")
        agrees = np.mean([side.agrees.mean for side in sides])
        dress(axes, f"{name.upper()} part: higher for right in {agrees:.0%}", "part of the score", "")
        _legend(axes)
    for axes in (shares, *parts):
        axes.set_ylim(bottom=0)
        axes.set_yticklabels([])
    return figure


def by_document(result: Truncation) -> list[Row]:
    """Rows with the default k of queries, by k of documents."""
    k = default_of(result).k_query
    rows = [row for row in result.rows if row.ranking == "fused" and row.k_query == k]
    return sorted(rows, key=lambda row: row.k_document or 0)


def by_query(result: Truncation) -> list[Row]:
    """Rows with the default k of documents, by k of queries; the whole query last."""
    k = default_of(result).k_document
    rows = [row for row in result.rows if row.ranking == "fused" and row.k_document == k]
    return sorted(rows, key=lambda row: row.k_query or np.inf)


def default_of(result: Truncation) -> Row:
    """The row with the artifact's own k."""
    return next(row for row in result.rows if row.is_default)


def new_figure(height: float) -> Figure:
    """As wide as all of them, `height` in inches."""
    return Figure(figsize=(WIDTH, height), dpi=110, layout="constrained", facecolor=GROUND)


def _alone(result: Truncation) -> list[Row]:
    return [row for row in result.rows if row.ranking in SIDES]


def _count(result: Truncation) -> str:
    return f"{len(result.documents)} collections" if len(result.documents) > 1 else "one collection"


def _bytes(row: Row) -> float:
    return row.document_bytes


def _median_ms(row: Row) -> float:
    assert row.search_ms, "the row was not timed"
    return row.search_ms.median


def _quality(rows: Sequence[Row]) -> list[float]:
    return [row.mean_ndcg.mean for row in rows]


def _line(axes: Axes, rows: Sequence[Row], place: Place, colour: str, label: str) -> None:
    """One k varied, with a ring around the default."""
    x = list(map(place, rows))
    axes.plot(x, _quality(rows), color=colour, linewidth=1.6, marker="o", markersize=4.5, label=label, zorder=3)
    for row in rows:
        if row.is_default:
            axes.plot(place(row), row.mean_ndcg.mean, "o", markersize=10, markerfacecolor="none", markeredgecolor=INK)


def _label(axes: Axes, rows: Sequence[Row], place: Place, k: str, colour: str) -> None:
    """Each mark's k, one for those that find the same: of documents below to the right, of queries above left."""
    to, side = ((5, -9), "left") if k == "k_document" else ((-5, 4), "right")
    for quality, alike in groupby(rows, lambda row: round(row.mean_ndcg.mean, 4)):
        marks = list(alike)
        at = place(marks[0]), quality
        text = " to ".join(str(getattr(row, k) or "all") for row in marks[:1] + marks[1:][-1:])
        axes.annotate(text, at, to, textcoords="offset points", ha=side, fontsize=7.5, color=colour, zorder=5)


def _sides(axes: Axes, result: Truncation, place: Place) -> None:
    for row in _alone(result):
        label, colour, marker = SIDES[row.ranking]
        axes.plot(place(row), row.mean_ndcg.mean, marker, color=colour, markersize=6, label=label, zorder=3)


def _whiskers(
    axes: Axes, rows: Sequence[Row], place: Place, value: Callable[[Row], Estimate], colour: str, label: str
) -> None:
    estimates = [value(row) for row in rows]
    means = [each.mean for each in estimates]
    ends = [[each.mean - each.low for each in estimates], [each.high - each.mean for each in estimates]]
    axes.errorbar(
        [place(row) for row in rows], means, ends, color=colour, linewidth=1.8, elinewidth=1.4, capsize=3, marker="o",
        markersize=4.5, label=label, zorder=3,
    )  # fmt: skip


def _density(*histograms: Histogram) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres and heights of the mean of histograms with the same edges."""
    edges = np.array(histograms[0].edges)
    heights = np.mean([np.array(each.counts) / sum(each.counts) for each in histograms], axis=0)
    return (edges[1:] + edges[:-1]) / 2, heights / np.diff(edges)


def _legend(axes: Axes, title: str = "") -> None:
    legend = axes.legend(fontsize=7.5, title=title or None, title_fontsize=7.5, labelcolor=INK, framealpha=1)
    legend.get_frame().set_edgecolor(GRID)
