"""What several commands may be told, and how it is read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from indexer.collection import CollectionOptions, Preset, parse_options
from indexer.settings import IndexSettings
from indexer.sources.options import Format
from model.commands.options import MissingExtra

S = TypeVar("S")
T = TypeVar("T")

IndexName = Annotated[str | None, typer.Option("--index", help="Name of the index; DUPMAE_INDEX when not given.")]
BuildId = Annotated[str, typer.Argument(help="As `dupmae index list` shows it.")]
ArtifactFolder = Annotated[Path | None, typer.Option(help="Artifact folder; the bundled model when not given.")]
FormatOption = Annotated[Format | None, typer.Option(help="Of every file, whatever its name says.")]
Columns = Annotated[
    list[str] | None, typer.Option(help="NAME=COLUMN[,COLUMN...]: what id, title, text or url is made of.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def settings_of(ctx: typer.Context, **flags: object) -> IndexSettings:
    """The settings with the flags that were given, which win."""
    assert isinstance(ctx.obj, IndexSettings), "the root command puts the settings here"
    return ctx.obj.model_copy(update={name: value for name, value in flags.items() if value is not None})


def parsed(option: str, parse: Callable[[S], T], text: S) -> T:
    """What an option's text stands for; text that it cannot be is wrong usage."""
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def collection_of(preset: Preset, pairs: list[str]) -> CollectionOptions:
    """A preset with KEY=VALUE pairs over it."""
    try:
        return parse_options(preset, pairs)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--collection") from error


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Name the extra when one of its packages is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in {"bm25s", "ir_measures", "ray", "Stemmer"}:
            raise
        raise MissingExtra(f"{error.name} is not installed: pip install 'dupmae-search[{name}]'") from error
