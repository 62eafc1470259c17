"""Commands that are imported when they are asked for.

The modules of `dupmae index` and `dupmae model` take longer to import than typer takes to start, and a command needs
those of its own group only. The cost: the one line by which the help lists a group stands here, and `Group` knows how
typer finds a command. A test holds the lines against the groups' own.
"""

from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup


class Place(NamedTuple):
    """Where a command is.

    Attributes:
        module: Holds the typer application of it.
        app: The application's name there.
        help: How the help lists it.
    """

    module: str
    app: str
    help: str


PLACES = {
    "evaluate": Place(
        "indexer.cli",
        "evaluation",
        "Measure BM25, each side of the vector, and the fused score on a judged collection.",
    ),
    "index": Place("indexer.cli", "app", "Build, publish and remove indexes."),
    "model": Place("model.cli", "app", "Train models, export them and look at them."),
    "key": Place("service.key_cli", "app", "Keys: who may ask the service, and for what."),
}


class Group(TyperGroup):
    """The root of the command line: what it lists by `PLACES` it imports when it is named."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # typer's own types, which it keeps to itself
        """As typer has it, with the command itself in the place of its line."""
        if place := PLACES.get(args[0]):
            self.commands[args[0]] = typer.main.get_command(getattr(import_module(place.module), place.app))
        return super().resolve_command(ctx, args)


def list_them(app: typer.Typer) -> None:
    """Give `app` the line of each, at the end of its help."""

    def never() -> None:
        raise AssertionError("resolved before it runs")

    for name, place in PLACES.items():
        app.command(name, help=place.help)(never)
