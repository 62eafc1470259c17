"""Every picture of `docs/figures/`, drawn from what was measured: the JSON files in `docs/figures/data/`.

    python -m runs.figures [FOLDER]

A picture whose data is not there is left out, and one that is there without data is removed. The same data gives the
same bytes on one machine; another version of matplotlib may place a letter elsewhere.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure
from pydantic import TypeAdapter

from model.plots import plot, save
from model.run_log import LOG
from runs.bars import draw_ablation, draw_limits
from runs.curves import draw_balance, draw_bytes, draw_times
from runs.results import AblationRow, Balance, Limits, Truncation, read

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
OF_A_RUN = ("loss.png", "dev.png")


def main() -> None:
    """Draw, and name what was drawn."""
    for path in draw(Path(sys.argv[1]) if len(sys.argv) > 1 else FIGURES):
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


def draw(folder: Path) -> list[Path]:
    """Draw from the files in `folder/data`, and remove the pictures that nothing speaks for."""
    drawn = []
    for name, figure in _figures(folder / "data"):
        save(figure, folder / name)
        drawn.append(folder / name)
    for log in sorted((folder / "data" / "logs").glob(f"*/{LOG}")):
        drawn += _draw_run(log, folder)
    for stale in set(folder.glob("*.png")) - set(drawn):
        stale.unlink()
    return drawn


def _figures(data: Path) -> Iterator[tuple[str, Figure]]:
    if truncation := read(Truncation, data / "truncation.json"):
        yield "quality-bytes.png", draw_bytes(truncation)
        if truncation.rounds:
            yield "quality-time.png", draw_times(truncation)
    if balance := read(Balance, data / "balance.json"):
        yield "balance.png", draw_balance(balance)
    if limits := read(Limits, data / "limits.json"):
        yield "limits.png", draw_limits(limits)
    if (ablation := data / "ablation.json").exists():
        yield "ablation.png", draw_ablation(TypeAdapter(list[AblationRow]).validate_json(ablation.read_bytes()))


def _draw_run(log: Path, folder: Path) -> Iterator[Path]:
    """The pictures of a run, with its name."""
    with tempfile.TemporaryDirectory() as scratch:
        for picture in plot(log, Path(scratch)):
            if picture.name in OF_A_RUN:
                path = folder / f"{picture.stem}-{log.parent.name}.png"
                path.write_bytes(picture.read_bytes())
                yield path


if __name__ == "__main__":
    main()
