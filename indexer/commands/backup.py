"""`dupmae index backup` and `restore`: an index in one file, and back."""

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from indexer.collection import Preset
from indexer.commands.options import AsJson, IndexName, collection_of, settings_of
from indexer.commands.printing import facts, is_published


def backup(
    ctx: typer.Context,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New file: .tar, .tar.gz or .tar.zst.")],
    index: IndexName = None,
    build_id: Annotated[str | None, typer.Option("--build", help="This build, not the published one.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every build that is ready.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write an index into one file: points, model, live writes, and which build is published."""
    from indexer.backup import backup as run
    from indexer.backup import choose_builds
    from indexer.catalog import open_engine
    from indexer.report import show_count

    if every and build_id:
        raise typer.BadParameter("name one build or take all, not both", param_hint="--all")
    settings = settings_of(ctx, index=index)
    with closing(open_engine(settings)) as engine:
        builds = choose_builds(engine, settings.index, build_id, every=every)
        with show_count("points", sum(build.passages or build.documents for build in builds)) as watch:
            kept = run(engine, settings, out, builds, lambda points: watch(points, 0))
    if as_json:
        typer.echo(kept.model_dump_json(exclude={"members"}, indent=2))
    else:
        points = sum(held.points for held in kept.builds)
        typer.echo(f"{out}: {len(kept.builds)} build(s) of index {kept.index}, {points:,} points.")


def restore(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As `backup` wrote it.")],
    index: Annotated[str | None, typer.Option("--index", help="Another name for it; its own when not given.")] = None,
    preset: Annotated[
        Preset | None, typer.Option(help="Lay it out anew, as `build` does.", show_default="as it was")
    ] = None,
    collection: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Over the preset.")] = None,
    live: Annotated[
        bool, typer.Option("--publish/--no-publish", help="Answer from the build that was published then.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Put a backup back, on either engine. What is published stays until everything was read back and is the same."""
    from indexer.catalog import open_engine
    from indexer.report import show_count
    from indexer.restore import RestoreOptions, read_backup
    from indexer.restore import restore as run

    layout = collection_of(preset or "laptop", collection or []) if preset or collection else None
    options = RestoreOptions(index=index, publish=live, collection=layout)
    settings = settings_of(ctx)
    with closing(open_engine(settings)) as engine:
        with show_count("checking, MB", file.stat().st_size // 10**6) as watch:
            kept = read_backup(file, lambda position: watch(position // 10**6, 0))
        with show_count("points", sum(held.points for held in kept.builds)) as watch:
            builds = run(engine, settings, file, kept, options, lambda points: watch(points, 0))
        published = [is_published(engine, build) for build in builds]
    if as_json:
        typer.echo(json.dumps(list(map(facts, builds, published)), indent=2))
    else:
        for build, is_live in zip(builds, published, strict=True):
            state = "published" if is_live else f"not published (dupmae index publish {build.id} --index {build.index})"
            typer.echo(f"Build {build.id} of index {build.index} is restored, {state}.")
