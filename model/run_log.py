"""What a training run shows and leaves behind: JSON lines, TensorBoard events, plots and a progress bar.

The JSON lines are the record, and plots are drawn from them; each step is written before the next one starts, which
costs less than a millisecond. TensorBoard and matplotlib are optional: without one of them the run says so and goes on.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG, EVENTS = "log.jsonl", "tensorboard"

LOSSES = ("total", "fused", "mlm", "cls", "bow", "ot", "distill")
"""Names of numbers that are losses, in nats, in the order in which they are shown."""

SHOWN = 4
"""Losses that fit into a line."""

PLAIN_LINES = 20
"""Lines that a run prints where there is no terminal for a bar, if it is quick."""

QUIET_S = 60.0
"""Longest time without such a line."""

Number = float | int
Show = Callable[[int, str], None]


class RunLog:
    """The log of one run in one folder, as a context manager; of several ranks the first one has it."""

    def __init__(self, folder: Path, *, steps: int, done: int = 0, title: str) -> None:
        """Open the files; a run that goes on loses what was written after the step it goes on from.

        Args:
            folder: Of this run; made if there is none.
            steps: That the whole run takes.
            done: Steps that are behind it; 0 starts the log anew.
            title: What the run does, in a word.
        """
        folder.mkdir(parents=True, exist_ok=True)
        _forget(folder, done)
        on_terminal = sys.stderr.isatty()
        self._console = Console(stderr=True, force_terminal=on_terminal)
        with ExitStack() as opened:
            if self._has("matplotlib", "plots"):
                from model.plots import plot  # now, so that a broken matplotlib does not wait for the end of the run

                opened.callback(plot, folder / LOG, folder)
            self._lines = opened.enter_context((folder / LOG).open("a", encoding="utf-8"))
            there = self._has("tensorboard", "TensorBoard events")
            self._events = opened.enter_context(_events(folder, done)) if there else None
            show = _bar if on_terminal and not self._console.is_dumb_terminal else _plain
            self._show = opened.enter_context(show(self._console, title, steps, done))
            self._opened = opened.pop_all()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)

    def write(self, step: int, numbers: Mapping[str, Number]) -> None:
        """Log a training step.

        Args:
            step: From 1.
            numbers: Losses in nats (`LOSSES`), `tokens_s`, and whatever else there is one number for. NaN and infinity
                become `null`, since JSON has neither.
        """
        self._record(step, numbers)
        self._send(step, {f"train/{name}": value for name, value in numbers.items()})
        self._show(step, _summary(numbers))

    def measured(self, step: int, name: str, figures: Mapping[str, float]) -> None:
        """Log figures measured after `step`: one value `name` (such as "dev") in the log, and a line shown."""
        self._record(step, {name: figures})
        self._send(step, {f"{name}/{figure}": value for figure, value in figures.items()})
        self._say(f"{name} after step {step}: " + " ".join(f"{key} {value:.3f}" for key, value in figures.items()))

    def _record(self, step: int, numbers: Mapping[str, Number | Mapping[str, float]]) -> None:
        print(json.dumps({"step": step, **_valid(numbers)}, allow_nan=False), file=self._lines, flush=True)

    def _send(self, step: int, numbers: Mapping[str, Number]) -> None:
        if self._events is not None:
            for tag, value in numbers.items():
                self._events.add_scalar(tag, value, step)
            self._events.flush()

    def _say(self, text: str) -> None:
        self._console.out(text, highlight=False)

    def _has(self, library: str, purpose: str) -> bool:
        there = find_spec(library) is not None
        if not there:
            self._say(f"{library} is not installed, so there will be no {purpose}: pip install 'dupmae-search[train]'")
        return there


def read_records(log: Path) -> Iterator[dict[str, Any]]:
    """Records of a log in its order, each with `step`; a line that is cut, or no record, is passed over."""
    with log.open("rb") as lines:
        yield from filter(None, map(_parse, lines))


def _forget(folder: Path, done: int) -> None:
    """Remove what a run wrote after step `done`; the log stays as it was until all of it is rewritten."""
    log = folder / LOG
    if log.exists():
        partial = log.with_name(LOG + ".partial")
        with log.open("rb") as lines, partial.open("wb") as kept:
            kept.writelines(line for line in lines if (record := _parse(line)) and record["step"] <= done)
        partial.replace(log)
    if not done:
        for stale in (folder / EVENTS).glob("events.out.tfevents.*"):
            stale.unlink()


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = line.endswith(b"\n") and isinstance(record, dict) and isinstance(record.get("step"), int)
    return record if whole else None


def _events(folder: Path, done: int) -> "closing[SummaryWriter]":
    from torch.utils.tensorboard import SummaryWriter

    return closing(SummaryWriter(str(folder / EVENTS), purge_step=done + 1))


def _valid(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as the log holds them: seven digits, which is what a float32 has, and no NaN.

    >>> _valid({"mlm": 10.327489852905273, "bow": math.inf, "dev": {"ot": 0.5}, "tokens": 12345678})
    {'mlm': 10.32749, 'bow': None, 'dev': {'ot': 0.5}, 'tokens': 12345678}
    """

    def valid(value: Any) -> Any:
        if isinstance(value, Mapping):
            return _valid(value)
        if isinstance(value, int):
            return value
        return float(f"{value:.7g}") if math.isfinite(value) else None

    return {name: valid(value) for name, value in numbers.items()}


def _summary(numbers: Mapping[str, Number]) -> str:
    """
    >>> _summary({"ot": 1, "norm": 9.0, "fused": 0.5, "tokens_s": 3412.4})
    'fused 0.500 ot 1.000 3,412 tokens/s'
    """
    losses = [f"{name} {numbers[name]:.3f}" for name in LOSSES if name in numbers][:SHOWN]
    return " ".join([*losses, f"{numbers['tokens_s']:,.0f} tokens/s"] if "tokens_s" in numbers else losses)


@contextmanager
def _bar(console: Console, title: str, steps: int, done: int) -> Iterator[Show]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, expand=True) as bar:
        task = bar.add_task(title, total=steps, completed=done, numbers="")
        yield lambda step, text: bar.update(task, completed=step, numbers=text)


@contextmanager
def _plain(console: Console, title: str, steps: int, done: int) -> Iterator[Show]:
    """Lines for a file: the first step and the last, each twentieth of the run, and when there was none for long."""
    start = monotonic()
    shown, last = -1, start  # twentieths of the run, and when the last line was

    def show(step: int, text: str) -> None:
        nonlocal shown, last
        now, part = monotonic(), step * PLAIN_LINES // steps
        if part > shown or now - last > QUIET_S:
            shown, last = part, now
            left = timedelta(seconds=round((now - start) / (step - done) * (steps - step)))
            console.out(f"{title} {step}/{steps} {text} {left} left", highlight=False)

    yield show
