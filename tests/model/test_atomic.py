"""Killed at any moment, a replaced folder is the old one or the new one."""

import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from model.atomic import before, replacing

REPLACE = """
import os, signal, sys
from pathlib import Path
from model.atomic import replacing

folder, left = Path(sys.argv[1]), int(sys.argv[2])

def die_after_some(event, arguments):
    global left
    touches_disk = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "open")
    if touches_disk and str(folder.parent) in str(arguments[0]) or event == "os.remove":
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die_after_some)
with replacing(folder) as new:
    for name in ("a", "b"):
        (new / name).write_text("new")
"""


def write(folder: Path, content: str) -> None:
    with replacing(folder) as new:
        for name in ("a", "b"):
            (new / name).write_text(content)


def content(folder: Path) -> list[str]:
    return [(folder / name).read_text() for name in ("a", "b")]


def killed_after(steps: int, folder: Path) -> bool:
    run = subprocess.run([sys.executable, "-c", REPLACE, str(folder), str(steps)], cwd=Path(__file__).parents[2])
    assert run.returncode in (0, -9)
    return run.returncode == -9


def test_a_folder_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    for text in ("one", "two"):
        write(tmp_path / "folder", text)
        assert content(tmp_path / "folder") == [text, text]
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_error_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    write(folder, "old")
    with pytest.raises(TypeError):
        write(folder, 5)  # type: ignore[arg-type]  # fails while it writes
    assert content(folder) == ["old", "old"]
    write(folder, "newer")
    assert content(folder) == ["newer", "newer"]


def test_killed_between_any_two_steps_there_is_a_whole_folder_and_the_next_writing_succeeds(tmp_path: Path) -> None:
    seen = set()
    for steps in count():
        folder = tmp_path / str(steps) / "folder"
        write(folder, "old")
        killed = killed_after(steps, folder)
        place = before(folder) or folder
        seen.add((place.name, *content(place)))
        assert before(folder) is None or content(place) == ["old", "old"]
        killed_after(steps // 2, folder)  # and once more while it recovers
        assert content(before(folder) or folder) in (["old", "old"], ["new", "new"])
        write(folder, "newest")
        assert content(folder) == ["newest", "newest"]
        assert [path.name for path in folder.parent.iterdir()] == ["folder"]
        if not killed:
            break
    assert seen == {("folder", "old", "old"), ("folder.old", "old", "old"), ("folder", "new", "new")}
