"""`dupmae index list`, `reconcile` and `delete`: the builds that are there."""

import json
from contextlib import closing
from typing import Annotated

import typer

from indexer.commands.options import AsJson, BuildId, IndexName, settings_of
from indexer.commands.printing import console, facts, is_published


def list_builds(ctx: typer.Context, index: IndexName = None, as_json: AsJson = False) -> None:
    """Show the builds of an index, newest first, and how far those are that are being made.

    `stopped` is a build that no process on this machine works on: the command that began it goes on with it.
    """
    from indexer.catalog import open_engine
    from indexer.ledger import is_open, ledger_path
    from indexer.report import builds_table

    settings = settings_of(ctx, index=index)
    with closing(open_engine(settings)) as engine:
        builds = [
            (build, is_published(engine, build), is_open(ledger_path(settings.data, build.index, build.id)))
            for build in engine.builds(settings.index)
        ]
    if as_json:
        rows = [facts(*row[:2]) | {"running": row[2], "seconds_left": row[0].seconds_left} for row in builds]
        typer.echo(json.dumps(rows, indent=2))
    else:
        console().print(builds_table(builds))


def reconcile(
    ctx: typer.Context,
    build_id: BuildId,
    index: IndexName = None,
    mend: Annotated[bool, typer.Option(help="Remove strays, and forget documents that have lost points.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare a build with its ledger, point by point: what is missing, and what nobody wrote down.

    With --mend the same `dupmae index build` indexes what is missing of a build that is not ready. Of one that is, the
    next build does: it copies only documents that are whole. Live writes are in no ledger and count as strays, so a
    build that has them is not mended.
    """
    from indexer.catalog import find_build, open_engine
    from indexer.reconcile import reconciled

    settings = settings_of(ctx, index=index)
    with closing(open_engine(settings)) as engine:
        found = reconciled(engine, find_build(engine, settings.index, build_id), settings.data, mend=mend)
    if as_json:
        typer.echo(json.dumps(found._asdict(), indent=2))
        return
    typer.echo(f"{len(found.missing):,} documents have lost points, {len(found.strays):,} points are strays.")
    for document in found.missing[:10]:
        typer.echo(f"missing: {document}")


def delete(
    ctx: typer.Context,
    build_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[BUILD_ID]...", help="As `dupmae index list` shows them.")
    ] = None,
    index: IndexName = None,
    failed: Annotated[bool, typer.Option("--failed", help="Every build that failed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before more than one build is deleted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove builds that are not published."""
    from indexer.catalog import choose_spare, open_engine
    from indexer.ledger import ledger_path, remove_ledger

    if failed == bool(build_ids):
        raise typer.BadParameter("name builds, or take those that --failed, one of the two", param_hint="BUILD_ID")
    settings = settings_of(ctx, index=index)
    with closing(open_engine(settings)) as engine:
        chosen = choose_spare(engine, settings.index, build_ids)
        names = ", ".join(build.id for build in chosen) or "none"
        if len(chosen) > 1 and not yes:
            typer.confirm(f"Delete {len(chosen)} builds of index {settings.index}: {names}?", abort=True, err=True)
        for build in chosen:
            engine.drop(build)
            remove_ledger(ledger_path(settings.data, build.index, build.id))
    if as_json:
        typer.echo(json.dumps([facts(build, False) for build in chosen], indent=2))
    else:
        typer.echo(f"Deleted of index {settings.index}: {names}.")
