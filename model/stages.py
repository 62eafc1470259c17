"""A run of several stages in one folder: what a stage has made is not made again, whatever killed the run since.

made-by.json     what the run depends on: the same, or it is another run
NAME/            the checkpoint of a stage, there when it is whole
NAME.run/        its log, plots and, until then, the state that its loop goes on from
NAME.json        figures
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import JsonValue

from model.checkpoint import Checkpoint, load
from model.loop import STATE
from model.options import TrainingError

MADE_BY = "made-by.json"

Figures = dict[str, float]


def claim(folder: Path, made_by: Mapping[str, JsonValue], *, restart: bool) -> None:
    """Begin a run in a folder, or go on with the one that it holds.

    Args:
        folder: Of the run.
        made_by: What its results depend on.
        restart: Forget the one that it holds.

    Raises:
        TrainingError: It holds another run, or something else.
    """
    note, stale = folder / MADE_BY, folder.with_name(folder.name + ".stale")
    if folder.exists() and not note.is_file():
        raise TrainingError(f"{folder} is there and has no {MADE_BY}, so it is of something else; remove it or its OUT")
    if folder.exists() and (restart or [path.name for path in folder.iterdir()] == [MADE_BY]):
        folder.rename(stale)  # one that has made nothing yet is not worth a question
    shutil.rmtree(stale, ignore_errors=True)
    if not folder.exists():
        new = folder.with_name(folder.name + ".partial")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        (new / MADE_BY).write_text(json.dumps(made_by, indent=2))
        new.rename(folder)
    was, now = json.loads(note.read_text()), json.loads(json.dumps(made_by))
    if other := [f"{key} was {was.get(key)!r}, is {now.get(key)!r}" for key in now if was.get(key) != now[key]]:
        raise TrainingError(
            f"{folder} holds an unfinished run that differs: {'; '.join(other)}. "
            "Give what it was given to go on, or --restart to begin anew"
        )


def stage(folder: Path, make: Callable[[Path], Checkpoint]) -> Checkpoint:
    """The checkpoint in a folder; made first, if it is not there, with the folder of its log as argument."""
    if folder.exists():
        return load(folder)
    log = folder.with_name(folder.name + ".run")
    made = make(log)
    made.save(folder)
    (log / STATE).unlink(missing_ok=True)
    return made


def figures(file: Path, measure: Callable[[], Figures]) -> Figures:
    """The figures in a file, measured first if it is not there."""
    if not file.exists():
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(measure()))
        partial.replace(file)
    found: Figures = json.loads(file.read_text())
    return found
