"""What several commands may be told, and the extra that they need."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from model.records import Records

Start = Annotated[Path, typer.Argument(help="Checkpoint, or any BERT folder of `transformers`.")]
Out = Annotated[Path, typer.Argument(help="Folder for the new checkpoint.")]
Texts = Annotated[list[Path], typer.Argument(help="JSON lines with `text`, or plain text; .gz, .xz, .zst too.")]
Restart = Annotated[bool, typer.Option("--restart", help="Begin anew: replace OUT, forget an unfinished run.")]
DenseDim = Annotated[int | None, typer.Option(min=1, help="Dimensions of [CLS] vectors; as it is, or 384.")]
ActivationRule = Annotated[
    Literal["raw", "relu", "log1p"] | None, typer.Option(help="Of the word weights; as it is, or relu.")
]


class MissingExtra(Exception):
    """A command needs packages that are not installed; the message names the extra."""


@contextmanager
def train_extra() -> Iterator[None]:
    """Name the extra when one of its packages is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra(f'{error.name} is not installed: pip install "dupmae-search[train]"') from error


def say_skipped(files: "Sequence[Records]") -> None:
    """Name the records of files that nothing can be learnt from."""
    for file in files:
        if file.skipped:
            left_out = ", ".join(f"{count} {what}" for what, count in file.skipped.items())
            typer.echo(f"{file.path}: left out {left_out}", err=True)
