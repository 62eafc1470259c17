"""What commands print."""

import json
import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from indexer.store import Build, Engine


def show_build(engine: "Engine", build: "Build", message: str, as_json: bool) -> None:
    """Say what became of a build, to a person or to a program."""
    typer.echo(json.dumps(facts(build, is_published(engine, build)), indent=2) if as_json else message)


def facts(build: "Build", published: bool) -> dict[str, object]:
    """A build as a program reads it; of what it is asked while it is served, the figures and not the queries."""
    probe = build.probe and {
        "name": build.probe.name,
        "queries": len(build.probe.queries),
        "own": {name: figure.model_dump() for name, figure in build.probe.own.items()},
    }
    kept = build.model_dump(mode="json", exclude={"probe": True, "rarity": {"holding"}})
    return kept | {"probe": probe, "published": published}


def is_published(engine: "Engine", build: "Build") -> bool:
    """Whether its index answers from it."""
    return build.index in engine.indexes() and engine.published(build.index).id == build.id


def console() -> "Console":
    """Standard output without markup, since sources may hold brackets; wide where no terminal limits it."""
    from rich.console import Console

    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 120)
