"""Pictures of rows: models that were trained otherwise, and sets of pairs, each with its interval."""

from collections.abc import Sequence
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.estimate import Estimate
from model.plots import COLOURS, GRID, INK, dress, tint
from runs.curves import CLS, FUSED, OT, new_figure
from runs.results import AblationRow, Contrast, Limits

RANKINGS = {"fused": ("fused", FUSED, "o"), "cls": ("CLS only", CLS, "D"), "ot": ("OT only", OT, "s")}
YARDSTICK = {"bm25": ("BM25", COLOURS[6], "^")}
ROW, HEAD, ENDS = 0.27, 0.9, 1.0
"""Height in inches of a row, of a group's heading in rows, and of what is around all rows."""


def draw_ablation(rows: Sequence[AblationRow]) -> Figure:
    """A bar with an interval for the fused score, marks for each side alone; in groups of what was changed."""
    groups = {group: list(each) for group, each in groupby(rows, key=lambda row: row.group)}
    labels = {group: [row.row for row in each] for group, each in groups.items()}
    figure, axes, places = _rows(labels)
    for place, row in zip(places, (row for each in groups.values() for row in each), strict=True):
        for ranking, value in row.ndcg.items():
            label, colour, marker = RANKINGS[ranking]
            each = Estimate(mean=value, low=value, high=value) if isinstance(value, float) else value
            if ranking == "fused":
                axes.barh(place, each.mean, 0.66, color=tint(colour), label=label, zorder=2)
                _interval(axes, place, each, INK)
            else:
                axes.plot(each.mean, place, marker, color=colour, markersize=5, label=label, zorder=4)
    _finish(axes, "what is left out or changed", "nDCG@10, mean; 95 % interval of fused")
    axes.set_xlim(left=0)
    return figure


def draw_limits(result: Limits) -> Figure:
    """A mark with an interval for every ranking of every set that is not part of another; guessing as a dash."""
    groups = {group: [each for each in sets.values() if not each.is_detail] for group, sets in result.groups.items()}
    labels = {group: [f"{each.title} ({each.pairs})" for each in sets] for group, sets in groups.items()}
    figure, axes, places = _rows(labels)
    sets: list[Contrast] = [each for of in groups.values() for each in of]
    for place, each in zip(places, sets, strict=True):
        axes.plot(
            [each.chance] * 2, [place - 0.45, place + 0.45], color=INK, linewidth=1, linestyle=":", label="guessing"
        )
        for number, (ranking, (label, colour, marker)) in enumerate((RANKINGS | YARDSTICK).items()):
            at = place + 0.2 * (number - 1.5)
            _interval(axes, at, each.accuracy[ranking], colour, width=0.9)
            axes.plot(each.accuracy[ranking].mean, at, marker, color=colour, markersize=4, label=label, zorder=4)
    _finish(axes, "pairs: is the right passage above the wrong one?", "share of the pairs; 95 % interval")
    axes.set_xlim(-0.02, 1.02)
    return figure


def _rows(labels: dict[str, list[str]]) -> tuple[Figure, Axes, list[float]]:
    """Axes for labelled rows from the top, and where each row is; groups have headings."""
    places: list[float] = []
    headings: list[tuple[float, str]] = []
    height = 0.0
    for group, names in labels.items():
        headings.append((height, group))
        places += [height + HEAD + number for number in range(len(names))]
        height += HEAD + len(names)
    figure = new_figure(ROW * height + ENDS)
    axes = figure.add_subplot()
    axes.set_ylim(height - 0.4, -0.6)
    ticks = sorted([*headings, *zip(places, (name for names in labels.values() for name in names), strict=True)])
    axes.set_yticks([place for place, _ in ticks], [label for _, label in ticks])
    for text, (place, _) in zip(axes.get_yticklabels(), ticks, strict=True):
        if place in dict(headings):
            text.set_fontweight("bold")
    return figure, axes, places


def _interval(axes: Axes, place: float, each: Estimate, colour: str, width: float = 1.3) -> None:
    axes.plot([each.low, each.high], [place, place], color=colour, linewidth=width, zorder=3)


def _finish(axes: Axes, title: str, x: str) -> None:
    dress(axes, title, x, "")
    axes.grid(visible=False, axis="y")
    found = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    names = [label for label, _, _ in (RANKINGS | YARDSTICK).values() if label in found]
    names += [label for label in found if label not in names]
    legend = axes.figure.legend(
        [found[name] for name in names], names, loc="outside upper right", ncols=6, fontsize=8, labelcolor=INK
    )
    legend.get_frame().set_edgecolor(GRID)
