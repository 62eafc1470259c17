"""Pictures of a log: which there are, that they show what the log holds, and that no log is too poor for one."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.plots import COLOURS, compare, plot, smooth
from model.run_log import LOG


def write(folder: Path, steps: int, *, dev: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    lines: list[dict[str, object]] = []
    for step in range(1, steps + 1):
        noise = math.sin(step * step)
        lines.append({"step": step, "mlm": 9 / step + noise, "cls": 9 - noise, "norm": noise, "learning_rate": 1e-4})
        if dev and step % 20 == 0:
            lines.append({"step": step, "dev": {"fused": 0.7, "cls": 0.6}})
    (folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / LOG


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def colours(path: Path) -> set[str]:
    """Colours of the lines in a picture; grey is that of text as well."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    wanted = {colour: [int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in COLOURS[:6]}
    return {colour for colour, rgb in wanted.items() if (np.abs(pixels - rgb).max(1) < 12).sum() > 10}


def test_a_run_becomes_small_opaque_pictures(tmp_path: Path) -> None:
    drawn = plot(write(tmp_path, 2000), tmp_path)
    assert names(drawn) == ["loss.png", "other.png", "dev.png"]
    for path in drawn:
        assert path.stat().st_size < 150_000
        with Image.open(path) as picture:
            assert not picture.has_transparency_data


def test_only_what_was_logged_is_drawn_and_older_pictures_go(tmp_path: Path) -> None:
    plot(write(tmp_path, 100), tmp_path)
    (tmp_path / LOG).write_text('{"step": 1, "fused": 2.0}\n{"step": 2, "fused": 1.0}\n')
    assert names(plot(tmp_path / LOG, tmp_path)) == ["loss.png"]
    assert [path.name for path in tmp_path.glob("*.png")] == ["loss.png"]


@pytest.mark.parametrize(
    "content",
    ["", "\n", '{"step": 1, "ml', "not a log\n", '{"step": "x"}\n', "[1]\n", '{"step": 1}\n'],
    ids=["empty", "blank", "cut", "foreign", "odd", "array", "no-numbers"],
)
def test_a_log_without_numbers_gives_no_picture(tmp_path: Path, content: str) -> None:
    (tmp_path / LOG).write_text(content)
    assert plot(tmp_path / LOG, tmp_path) == []


def test_one_step_is_drawn(tmp_path: Path) -> None:
    assert names(plot(write(tmp_path, 1), tmp_path)) == ["loss.png", "other.png"]
    assert colours(tmp_path / "loss.png") == {COLOURS[0]}


def test_a_log_cut_anywhere_is_drawn_as_far_as_it_goes(tmp_path: Path) -> None:
    log = write(tmp_path, 30)
    whole = log.read_bytes()
    for cut in (len(whole) // 2, len(whole) - 1):
        log.write_bytes(whole[:cut])
        assert "loss.png" in names(plot(log, tmp_path))


def test_missing_numbers_are_gaps(tmp_path: Path) -> None:
    (tmp_path / LOG).write_text("".join(f'{{"step": {step}, "mlm": null, "cls": 1}}\n' for step in range(1, 100)))
    assert names(plot(tmp_path / LOG, tmp_path)) == ["loss.png"]


def test_each_measured_figure_has_a_colour_and_each_compared_run_as_well(tmp_path: Path) -> None:
    first, second = write(tmp_path / "first", 100), write(tmp_path / "second", 100, dev=False)
    plot(first, tmp_path)
    assert colours(tmp_path / "dev.png") == set(COLOURS[:2])
    assert colours(tmp_path / "loss.png") == {COLOURS[0]}
    assert names(compare([second, first], tmp_path)) == ["loss.png", "other.png", "dev.png"]
    assert colours(tmp_path / "dev.png") == {COLOURS[1]}  # the second run's, though the first has none there


def test_runs_of_one_folder_name_stay_apart_and_long_names_leave_room(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) / ("run" * 20) for number in range(4)]
    for folder in folders:
        folder.parent.mkdir()
    compare([write(folder, 50) for folder in folders], tmp_path)
    assert colours(tmp_path / "loss.png") == set(COLOURS[:4])


def test_a_log_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        plot(tmp_path / LOG, tmp_path)


def test_smoothing_leaves_a_straight_line_and_takes_noise_away() -> None:
    line = np.linspace(5.0, 1.0, 400)
    noise = np.where(np.arange(400) % 2, 0.5, -0.5)
    assert np.allclose(smooth(line)[:-10], line[:-10])
    assert np.abs(smooth(line + noise) - line)[10:].max() < 0.1


def test_smoothing_passes_over_what_is_missing() -> None:
    values = np.ones(400)
    values[100:110] = np.nan
    assert np.allclose(smooth(values), 1.0)
