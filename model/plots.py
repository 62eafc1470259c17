"""Plots of a run's log as PNG files, or of several runs in one picture to compare them.

Drawn with `Figure` alone, so no state of pyplot's is touched, and on a light ground of their own, so that they read the
same in a light and in a dark viewer.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from model.run_log import LOSSES, read_records

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555")
"""Okabe and Ito's, which colour-blind readers tell apart; more lines than that begin again."""

GROUND, INK, GRID = "#FFFFFF", "#333333", "#E4E4E4"

TITLES = {"norm": "gradient norm", "tokens_s": "tokens per second"}
"""Of numbers whose name is not title enough."""

EXACT = frozenset({"learning_rate"})
"""Numbers without noise, which are not smoothed."""

POINTS = 30
"""So few values are drawn with a marker for each."""

LABEL = 16
"""Characters of a name for which there is room in a legend."""

PANEL, WIDEST = (4.4, 2.6), 9.0
"""Inches of a panel, and of a picture, which stays readable where a page shows it smaller."""

WINDOW = 40
"""A smoothed value is a mean over at most a fortieth of the steps before it, and as many after it."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """Values over steps, each in order; NaN where the run had no number."""

    steps: "array[float]" = field(default_factory=lambda: array("d"))
    values: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, step: int, value: float | None) -> None:
        """Append a value, or the lack of one."""
        self.steps.append(step)
        self.values.append(float("nan") if value is None else value)


class Run(NamedTuple):
    """A log by names: `numbers` of its training steps, and figures `measured` in between, as ("dev", "fused")."""

    numbers: Mapping[str, Series]
    measured: Mapping[tuple[str, str], Series]


class Panel(NamedTuple):
    """Lines over steps, by the label of each; with noise they are smoothed as well. An empty one keeps its colour."""

    title: str
    unit: str
    lines: Mapping[str, Series]
    has_noise: bool


def plot(log: Path, folder: Path) -> list[Path]:
    """Draw a run: `loss.png`, `other.png` with its other numbers, `dev.png` with what was measured.

    Args:
        log: Of `RunLog`. A line that is cut is passed over.
        folder: Gets the files. Of these names, those that the log has nothing for are removed.

    Returns:
        The files drawn; none for a log without numbers.

    Raises:
        FileNotFoundError: No such log.
    """
    return compare([log], folder)


def compare(logs: Sequence[Path], folder: Path) -> list[Path]:
    """The same for several runs, a line for each, named after the folder of its log; numbered where these are alike."""
    names = [log.parent.name[:LABEL] for log in logs]
    labels = names if len(set(names)) == len(logs) else [f"{number} {name}" for number, name in enumerate(names, 1)]
    runs = {label: _read(log) for label, log in zip(labels, logs, strict=True)}
    keys = list(dict.fromkeys(key for run in runs.values() for key in run.numbers))
    pictures = {
        "loss.png": [_over_runs(runs, key, "nats") for key in LOSSES if key in keys],
        "other.png": [_over_runs(runs, key, "") for key in keys if key not in LOSSES],
        "dev.png": _measurements(runs),
    }
    for name, panels in pictures.items():
        if panels:
            _draw(panels, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    return [folder / name for name, panels in pictures.items() if panels]


def smooth(values: Floats) -> Floats:
    """Means over the neighbours of each value: as many before it as after it while there are, so that none lag behind.

    Args:
        values: (N,); NaN is left out of the means.

    >>> smooth(np.array([4.0, 2.0, np.nan, 1.0])).tolist()
    [4.0, 2.0, nan, 1.0]
    """
    at = np.arange(len(values))
    before = np.minimum(at, len(values) // WINDOW)
    after = np.minimum(before, at[::-1])
    known = np.isfinite(values)
    sums, counts = (np.concatenate([[0], np.cumsum(part)]) for part in (np.where(known, values, 0.0), known))
    total, count = (part[at + after + 1] - part[at - before] for part in (sums, counts))
    means: Floats = np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
    return means


def _read(log: Path) -> Run:
    numbers: dict[str, Series] = {}
    measured: dict[tuple[str, str], Series] = {}
    for record in read_records(log):
        for name, value in record.items():
            if isinstance(value, Mapping):
                for figure, number in value.items():
                    measured.setdefault((name, figure), Series()).add(record["step"], number)
            elif name != "step":
                numbers.setdefault(name, Series()).add(record["step"], value)
    return Run(numbers, measured)


def _over_runs(runs: Mapping[str, Run], key: str, unit: str) -> Panel:
    lines = {label: run.numbers.get(key, Series()) for label, run in runs.items()}
    return Panel(TITLES.get(key, key.replace("_", " ")), unit, lines, has_noise=key not in EXACT)


def _measurements(runs: Mapping[str, Run]) -> list[Panel]:
    """Of one run, all figures of a name in one panel; of several, a panel for each figure."""
    keys = list(dict.fromkeys(key for run in runs.values() for key in run.measured))
    if len(runs) > 1:
        by_key = {key: {label: run.measured.get(key, Series()) for label, run in runs.items()} for key in keys}
        return [Panel(" ".join(key), "", lines, has_noise=False) for key, lines in by_key.items()]
    [run] = runs.values()
    names = dict.fromkeys(name for name, _ in keys)
    return [
        Panel(name, "", {figure: run.measured[name, figure] for of, figure in keys if of == name}, has_noise=False)
        for name in names
    ]


def _draw(panels: Sequence[Panel], path: Path) -> None:
    columns = min(len(panels), 2 if len(panels) in (2, 4) else 3)
    rows = -(-len(panels) // columns)
    size = min(PANEL[0] * columns, WIDEST), PANEL[1] * rows
    figure = Figure(figsize=size, dpi=110, layout="constrained", facecolor=GROUND)
    for number, panel in enumerate(panels, 1):
        _fill(figure.add_subplot(rows, columns, number, facecolor=GROUND), panel)
    if any(len(panel.lines) > 1 for panel in panels):
        lines = {str(line.get_label()): line for axes in figure.axes for line in axes.get_legend_handles_labels()[0]}
        figure.legend(
            list(lines.values()),
            list(lines),
            loc="outside upper left",
            ncols=max(3, 2 * columns),
            fontsize=8,
            frameon=False,
            labelcolor=INK,
        )
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write one file, the same bytes for the same figure.

    256 colours make it half as large; chosen for coverage, they keep that of a single dot.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # once; `savefig` draws twice, to know its bounds
    few = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    few = few.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def tint(colour: str) -> tuple[float, ...]:
    """A light form of a colour, for areas; opaque, so that a picture keeps to few colours.

    >>> tint("#000000")
    (0.65, 0.65, 0.65)
    """
    return tuple(1 - 0.35 * (1 - part) for part in to_rgb(colour))


def dress(axes: Axes, title: str, x: str, y: str) -> None:
    """Give axes their words and the looks that all pictures share: a light grid, and no frame."""
    axes.set_title(title, color=INK, fontsize=10, fontweight="bold", loc="left")
    axes.set_xlabel(x, color=INK, fontsize=9)
    axes.set_ylabel(y, color=INK, fontsize=9)
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _fill(axes: Axes, panel: Panel) -> None:
    for number, (label, series) in enumerate(panel.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        steps, values = np.array(series.steps), np.array(series.values)
        if not len(steps):
            continue
        if panel.has_noise:
            axes.plot(steps, values, color=colour, linewidth=0.6, alpha=0.3, zorder=2)
            values = smooth(values)
        marker = "o" if len(steps) <= POINTS else ""
        axes.plot(steps, values, color=colour, linewidth=1.6, marker=marker, markersize=3.5, label=label, zorder=3)
    dress(axes, panel.title, "step", panel.unit)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
