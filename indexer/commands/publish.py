"""`dupmae index publish`, `verify` and `rollback`: which build answers, and whether it may."""

import json
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.commands.options import AsJson, BuildId, IndexName, settings_of
from indexer.commands.printing import console, facts, show_build
from indexer.settings import IndexSettings

if TYPE_CHECKING:
    from indexer.release import ReleaseOptions
    from indexer.store import Build, Engine

Gate = Annotated[bool, typer.Option("--gate/--no-gate", help="Verify and judge it before it goes live.")]
Judge = Annotated[
    str | None, typer.Option(help="BEIR_FOLDER[:SPLIT]: judgements of these documents; known items when not given.")
]
Tolerance = Annotated[float, typer.Option(min=0, help="Loss of nDCG@10 against the published build that is allowed.")]
MaxShrink = Annotated[float, typer.Option(min=0, max=1, help="Share of the published documents that may be missing.")]
MaxBad = Annotated[int, typer.Option(min=0, help="Bad records that are put up with.")]
Keep = Annotated[int, typer.Option(min=0, help="Ready builds that remain once it is live, itself counted; 0: all.")]


def publish(
    ctx: typer.Context,
    build_id: BuildId,
    index: IndexName = None,
    gate: Gate = True,
    judge: Judge = None,
    tolerance: Tolerance = 0.005,
    max_shrink: MaxShrink = 0.2,
    max_bad: MaxBad = 100,
    keep: Keep = 3,
    as_json: AsJson = False,
) -> None:
    """Let an index answer from another of its builds, if that one is sound and finds as much."""
    from indexer.catalog import find_build, open_engine

    settings = settings_of(ctx, index=index)
    releasing = release_options(gate, judge, (tolerance, max_shrink, max_bad), keep)
    with closing(open_engine(settings)) as engine:
        found = find_build(engine, settings.index, build_id)
        message = f"Index {settings.index} answers from build {found.id}."
        release_build(engine, settings, found, releasing, message, as_json)


def verify(
    ctx: typer.Context,
    build_id: Annotated[
        str | None, typer.Argument(help="As `dupmae index list` shows it.", show_default="the newest")
    ] = None,
    index: IndexName = None,
    as_json: AsJson = False,
) -> None:
    """Check that a build is whole and answers as its model and its texts say; nothing is changed."""
    from indexer.catalog import find_build, newest_build, open_engine
    from indexer.release import VerificationFailed, verify_build
    from indexer.report import show_count, verification_table

    settings = settings_of(ctx, index=index)
    with closing(open_engine(settings)) as engine:
        name = settings.index
        found = find_build(engine, name, build_id) if build_id else newest_build(engine, name)
        with show_count("verifying", found.passages or found.documents) as watch:
            verification = verify_build(engine, settings, found, lambda points: watch(points, 0))
    if as_json:
        typer.echo(verification.model_dump_json(indent=2))
    else:
        console().print(f"Build {found.id} of index {found.index}", verification_table(verification), sep="\n")
    if not verification.ok:
        failed = ", ".join(check.name for check in verification.failed)
        raise VerificationFailed(f"build {found.id} of index {found.index} failed at: {failed}; build it again")


def rollback(ctx: typer.Context, index: IndexName = None, as_json: AsJson = False) -> None:
    """Publish the ready build before the published one. Nothing is deleted."""
    from indexer.catalog import open_engine
    from indexer.catalog import rollback as roll_back

    settings = settings_of(ctx, index=index)
    with closing(open_engine(settings)) as engine:
        found = roll_back(settings, engine, settings.index)
        show_build(engine, found, f"Index {settings.index} answers from build {found.id}.", as_json)


def release_options(gate: bool, judge: str | None, limits: tuple[float, float, int], keep: int) -> "ReleaseOptions":
    """What `release` is told; a judged set that cannot be read is said before anything else is done."""
    from indexer.gate import Limits
    from indexer.judgement import read_judged
    from indexer.release import ReleaseOptions

    if judge and not gate:
        raise typer.BadParameter("--no-gate judges nothing; leave one of the two out", param_hint="--judge")
    tolerance, max_shrink, max_bad = limits
    allowed = Limits(tolerance=tolerance, max_shrink=max_shrink, max_bad=max_bad)
    return ReleaseOptions(gate=gate, judged=read_judged(judge) if judge else None, limits=allowed, keep=keep)


def release_build(
    engine: "Engine",
    settings: IndexSettings,
    build: "Build",
    options: "ReleaseOptions",
    message: str,
    as_json: bool,
) -> None:
    """Let an index answer from a build, if the gate lets it through, and say so."""
    from indexer.release import release
    from indexer.report import release_lines, show_count

    if options.gate:
        with show_count("verifying", build.passages or build.documents) as watch:
            watched = replace(options, watch=lambda points: watch(points, 0))
            done = release(engine, settings, build, watched)
    else:
        done = release(engine, settings, build, options)
    if as_json:
        typer.echo(json.dumps(facts(done.build, True) | {"removed": done.removed, "note": done.note}, indent=2))
    else:
        console().print(message, *release_lines(done), sep="\n")
