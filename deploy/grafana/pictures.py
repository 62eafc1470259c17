"""Pictures of the dashboards for docs/, drawn from their own queries as a real Prometheus answers them.

    python -m deploy.grafana.pictures [SECONDS]

It serves an index, keeps it busy, builds it anew beside that, and has Prometheus watch (`deploy/grafana/traffic.py`).
Grafana draws the same queries in panels of the same order; these are not its pixels. Its interval for rates is four
scrapes; here that is `RATE`.
"""

import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from deploy.grafana.draw import DASHBOARDS, Graph
from deploy.grafana.traffic import busy_service
from deploy.local import prometheus
from model.plots import COLOURS, GROUND, INK, dress, save

FOLDER = Path(__file__).parents[2] / "docs" / "dashboards"
SECONDS = 240
STEP_S = 2
RATE = "[20s]"
WIDTH, LINE, HEADING = 8.8, 1.75, 0.25
"""Inches: of a picture, and the heights of a line of panels and of a row's title."""

ACROSS = 3
LABEL, SHORT = 36, 16
"""Characters of a curve's name for which a panel has room, and with two names side by side."""

UNITS = {"reqps": "requests/s", "wps": "writes/s", "s": "seconds", "bytes": "bytes", "percentunit": "share", "none": ""}


class Period(NamedTuple):
    """What is drawn, in Unix time."""

    begin: float
    end: float

    @property
    def times(self) -> npt.NDArray[np.float64]:
        """(N,) the moments that are asked for."""
        return np.arange(round(self.begin), round(self.end) + 1, STEP_S, dtype=np.float64)


def main() -> None:
    """Draw them all, and name what was drawn."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        served, watching = Path(scratch) / "served", Path(scratch) / "prometheus"
        for folder in (served, watching):
            folder.mkdir()
        with busy_service(served, seconds) as targets, prometheus(watching, targets, every_s=1) as client:
            begin = datetime.now(UTC).timestamp()
            time.sleep(seconds)
            for name in DASHBOARDS:
                path = FOLDER / f"{name}.png"
                save(picture(client, DASHBOARDS[name], Period(begin, begin + seconds)), path)
                print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


def picture(client: httpx.Client, rows: Mapping[str, Sequence[Graph]], period: Period) -> Figure:
    """One dashboard, without the rows that nobody answers: here no Qdrant is watched."""
    found = {graph.title: curves(client, graph, period) for graphs in rows.values() for graph in graphs}
    lines = {
        title: list(_lines(graphs)) for title, graphs in rows.items() if any(found[graph.title] for graph in graphs)
    }
    heights = [HEADING + LINE * len(of) for of in lines.values()]
    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=96, layout="constrained", facecolor=GROUND)
    parts = figure.subfigures(len(lines), 1, squeeze=False, height_ratios=heights)
    for part, (title, of) in zip(parts.flat, lines.items(), strict=True):
        part.set_facecolor(GROUND)
        part.suptitle(title, x=0.01, ha="left", color=INK, fontsize=10, fontweight="bold")
        panels = part.subplots(len(of), ACROSS, squeeze=False)
        for axes in panels.flat:
            axes.set_visible(False)
        for row, graphs in zip(panels, of, strict=True):
            for axes, graph in zip(row, graphs, strict=False):
                axes.set_visible(True)
                _draw(axes, graph, found[graph.title], period)
    return figure


def curves(client: httpx.Client, graph: Graph, period: Period) -> dict[str, npt.NDArray[np.float64]]:
    """The values of each curve of a panel at `Period.times`, NaN where it has none; by its name in the legend."""
    found: dict[str, npt.NDArray[np.float64]] = {}
    times = period.times
    for legend, query in graph.queries.items():
        asked = query.replace("[$__rate_interval]", RATE)
        parameters = {"query": asked, "start": times[0], "end": times[-1], "step": STEP_S}
        for series in client.get("/query_range", params=parameters).raise_for_status().json()["data"]["result"]:
            values = np.full(len(times), np.nan)
            for at, value in series["values"]:
                values[round((at - times[0]) / STEP_S)] = float(value)
            found[named(legend, series["metric"])] = values
    return found


def named(legend: str, labels: Mapping[str, str]) -> str:
    """What a legend says of a series.

    >>> named("{{stage}}, p95", {"stage": "encode"})
    'encode, p95'
    """
    name = re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), legend)
    return name if len(name) <= LABEL else name[: LABEL - 1] + "…"


def shown(value: float, unit: str) -> str:
    """A number beside an axis.

    >>> shown(0.05, "percentunit"), shown(62.5e9, "bytes"), shown(0.05, "s")
    ('5 %', '62.5 G', '0.05')
    """
    if unit == "percentunit":
        return f"{100 * value:g} %"
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if unit == "bytes" and value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _lines(graphs: Sequence[Graph]) -> Iterator[list[Graph]]:
    left = iter(graphs)
    while line := list(islice(left, ACROSS)):
        yield line


def _draw(axes: Axes, graph: Graph, of: Mapping[str, npt.NDArray[np.float64]], period: Period) -> None:
    minutes = (period.times - period.begin) / 60
    for number, (name, values) in enumerate(of.items()):
        axes.plot(minutes, values, color=COLOURS[number % len(COLOURS)], linewidth=1.2, label=name)
    dress(axes, "", "", UNITS[graph.unit])
    axes.set_title(graph.title, loc="left", color=INK, fontsize=8.5)
    axes.yaxis.label.set_fontsize(7)
    axes.tick_params(labelsize=6.5)
    axes.set_xlim(0, minutes[-1])
    columns = 2 if len(of) > 2 and max(map(len, of)) <= SHORT else 1
    highest = max((np.nanmax(values) for values in of.values()), default=0)
    axes.set_ylim(0, (1.1 + 0.15 * -(-len(of) // columns)) * highest or 1)  # with room for the legend
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda minute, _: f"{minute:g} min"))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, graph.unit)))
    legend = axes.legend(
        fontsize=5.5,
        frameon=False,
        labelcolor=INK,
        loc="upper left",
        handlelength=1.2,
        labelspacing=0.25,
        borderaxespad=0.2,
        ncols=columns,
    )
    legend.set_in_layout(False)  # a long name would make its panel narrow


if __name__ == "__main__":
    main()
