"""`dupmae index ...` and `dupmae evaluate`.

Commands raise what the packages raise; `service.cli.main` turns it into one line and an exit code. Whatever takes long
to import is imported by the command that needs it, so that `--help` is quick.
"""

import json
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar, cast, get_args

import typer

from indexer.collection import CollectionOptions, Preset, parse_options
from indexer.settings import IndexSettings
from indexer.sources.options import Format
from model.cli import MissingExtra

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.console import Console

    from indexer.encoders import Encoders
    from indexer.negatives import Margin
    from indexer.release import ReleaseOptions
    from indexer.store import Build, Chunking, Engine, FieldType
    from model.artifact import Artifact

S = TypeVar("S")
T = TypeVar("T")

app = typer.Typer(help="Build, publish and remove indexes.", no_args_is_help=True)

Method = Literal["fused", "cls", "ot", "rrf", "bm25"]
IndexName = Annotated[str | None, typer.Option("--index", help="Name of the index; DUPMAE_INDEX when not given.")]
BuildId = Annotated[str, typer.Argument(help="As `dupmae index list` shows it.")]
ArtifactFolder = Annotated[Path | None, typer.Option(help="Artifact folder; the bundled model when not given.")]
FormatOption = Annotated[Format | None, typer.Option(help="Of every file, whatever its name says.")]
Columns = Annotated[
    list[str] | None, typer.Option(help="NAME=COLUMN[,COLUMN...]: what id, title, text or url is made of.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Gate = Annotated[bool, typer.Option("--gate/--no-gate", help="Verify and judge it before it goes live.")]
Judge = Annotated[
    str | None, typer.Option(help="BEIR_FOLDER[:SPLIT]: judgements of these documents; known items when not given.")
]
Tolerance = Annotated[float, typer.Option(min=0, help="Loss of nDCG@10 against the published build that is allowed.")]
MaxShrink = Annotated[float, typer.Option(min=0, max=1, help="Share of the published documents that may be missing.")]
MaxBad = Annotated[int, typer.Option(min=0, help="Bad records that are put up with.")]
Keep = Annotated[int, typer.Option(min=0, help="Ready builds that remain once it is live, itself counted; 0: all.")]


BUILD_EXAMPLES = """Example: dupmae index build articles.jsonl.gz --field metadata.lang=keyword

A table: dupmae index build articles.csv.zst --map id=url --map text=abstract,body

A folder of notes: dupmae index build handbook/

A folder of tables: dupmae index build shards/ --format parquet

Another program: export-wiki | dupmae index build - --format csv"""


@app.command(epilog=BUILD_EXAMPLES)
def build(
    ctx: typer.Context,
    sources: Annotated[list[str], typer.Argument(help="Files or folders of any format, or - for stdin.")],
    index: IndexName = None,
    artifact: ArtifactFolder = None,
    field: Annotated[list[str] | None, typer.Option(help="NAME=TYPE: a field that filters may use.")] = None,
    passage_tokens: Annotated[
        int | None, typer.Option(min=16, help="Longest passage of a long document; else what the model reads.")
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(min=0, help="Tokens a passage may share with the one before.", show_default="32")
    ] = None,
    title: Annotated[bool, typer.Option("--title/--no-title", help="Carry the title into each passage.")] = True,
    format: FormatOption = None,
    map: Columns = None,
    dead_letters: Annotated[Path | None, typer.Option(help="File for bad records; else in the data folder.")] = None,
    max_bad: MaxBad = 100,
    preset: Annotated[Preset, typer.Option(help="How the engine lays it out: RAM, disk or a cluster.")] = "laptop",
    collection: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Over the preset, such as quantization=int8.")
    ] = None,
    live: Annotated[bool, typer.Option("--publish/--no-publish", help="Answer from it when it is ready.")] = True,
    gate: Gate = True,
    judge: Judge = None,
    tolerance: Tolerance = 0.005,
    max_shrink: MaxShrink = 0.2,
    keep: Keep = 3,
    restart: Annotated[bool, typer.Option(help="Begin anew, whatever is left of another run.")] = False,
    reuse: Annotated[
        bool, typer.Option("--reuse/--no-reuse", help="Copy vectors of documents that an older build holds unchanged.")
    ] = True,
    encoders: Annotated[int, typer.Option(min=1, help="Processes (or Ray actors) that encode.")] = 1,
    on: Annotated[Literal["local", "ray"], typer.Option("--engine", help="Where they run.")] = "local",
    patience: Annotated[float, typer.Option(min=0, help="Seconds that the store may be away.")] = 300,
    metrics_port: Annotated[int | None, typer.Option(help="Serve Prometheus metrics here, on all interfaces.")] = None,
    metrics_file: Annotated[Path | None, typer.Option(help="Write them here, for the textfile collector.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read documents, encode them and make them the new content of an index.

    What is published answers until the new build is ready, and stays if the build fails or is refused. A build that was
    killed goes on when the same command is given again; documents that did not change are not encoded again.
    """
    from indexer.build import BuildOptions, build_index
    from indexer.catalog import keep_artifact, new_artifact, open_encoder, open_engine
    from indexer.job_metrics import exposed
    from indexer.report import describe, show_progress
    from indexer.sources import ReadOptions, count_records, parse_columns, read_documents, unread_files

    reading = ReadOptions(format, _usage("--map", parse_columns, map or []))
    settings = _settings(ctx, artifact=artifact, index=index)
    options = BuildOptions(
        index=settings.index,
        fields=_fields(field or []),
        source=_told(sources, format, map or []),
        chunking=_chunking(passage_tokens, overlap, title),
        max_bad=max_bad,
        dead_letters=dead_letters or settings.data / "dead-letters" / f"{settings.index}.jsonl",
        collection=_collection(preset, collection or []),
        data=settings.data,
        restart=restart,
        reuse=reuse,
        patience_s=patience,
    )
    releasing = _release_options(gate, judge, (tolerance, max_shrink, max_bad), keep) if live else None
    with closing(open_engine(settings)) as engine:
        artifact_kept = keep_artifact(settings, new_artifact(settings))
        encoder = open_encoder(settings, artifact_kept)
        if unread := unread_files(sources, reading):
            typer.echo(
                f"Not read: {', '.join(f'{count} {suffix}' for suffix, count in unread.most_common())}", err=True
            )
        with (
            show_progress(total := count_records(sources, reading)) as bar,
            exposed(settings.index, bar, port=metrics_port, file=metrics_file) as (progress, _),
            _extra("ray"),
            _terminable(),
        ):
            encoding = _encoding(settings, artifact_kept, options.chunking, on, encoders)
            records = read_documents(sources, sys.stdin.buffer, reading)
            ready = build_index(engine, encoder, records, replace(options, total=total), progress, encoding=encoding)
        message = describe(ready, live, options.dead_letters)
        if releasing:
            _release(engine, settings, ready, releasing, message, as_json)
        else:
            _show(engine, ready, message, as_json)


@app.command(epilog="Example: dupmae index estimate articles.jsonl.gz --workers 4")
def estimate(
    ctx: typer.Context,
    sources: Annotated[list[str], typer.Argument(help="As `build` reads them.")],
    artifact: ArtifactFolder = None,
    format: FormatOption = None,
    map: Columns = None,
    workers: Annotated[int, typer.Option(min=1, help="Machines like this one that encode side by side.")] = 1,
    sample: Annotated[int, typer.Option(min=1, help="Documents that are encoded to learn the rate.")] = 256,
    preset: Annotated[Preset, typer.Option(help="How the engine would lay it out.")] = "laptop",
    collection: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Over the preset.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what an index will take before it is made: documents, tokens, bytes on disk and in RAM, hours."""
    from indexer.catalog import new_artifact, open_encoder
    from indexer.cost import CostOptions, estimate_cost
    from indexer.report import cost_table, show_reading
    from indexer.sources import ReadOptions, parse_columns, read_documents

    reading = ReadOptions(format, _usage("--map", parse_columns, map or []))
    options = CostOptions(sample=sample, workers=workers, collection=_collection(preset, collection or []))
    settings = _settings(ctx, artifact=artifact)
    encoder = open_encoder(settings, new_artifact(settings))
    with show_reading(read_documents(sources, sys.stdin.buffer, reading)) as records:
        cost = estimate_cost(encoder, records, options)
    if as_json:
        typer.echo(cost.model_dump_json(indent=2))
    else:
        _console().print(cost_table(cost))


@app.command("list", epilog="Example: dupmae index list --json")
def list_builds(ctx: typer.Context, index: IndexName = None, as_json: AsJson = False) -> None:
    """Show the builds of an index, newest first, and how far those are that are being made.

    `stopped` is a build that no process on this machine works on: the command that began it goes on with it.
    """
    from indexer.catalog import open_engine
    from indexer.ledger import is_open, ledger_path
    from indexer.report import builds_table, seconds_left

    settings = _settings(ctx, index=index)
    with closing(open_engine(settings)) as engine:
        builds = [
            (build, _is_published(engine, build), is_open(ledger_path(settings.data, build.index, build.id)))
            for build in engine.builds(settings.index)
        ]
    if as_json:
        rows = [_facts(*row[:2]) | {"running": row[2], "seconds_left": seconds_left(row[0])} for row in builds]
        typer.echo(json.dumps(rows, indent=2))
    else:
        _console().print(builds_table(builds))


@app.command(epilog="Example: dupmae index reconcile 20260102-030405-abc123 --mend")
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

    settings = _settings(ctx, index=index)
    with closing(open_engine(settings)) as engine:
        found = reconciled(engine, find_build(engine, settings.index, build_id), settings.data, mend=mend)
    if as_json:
        typer.echo(json.dumps(found._asdict(), indent=2))
        return
    typer.echo(f"{len(found.missing):,} documents have lost points, {len(found.strays):,} points are strays.")
    for document in found.missing[:10]:
        typer.echo(f"missing: {document}")


@app.command(epilog="Example: dupmae index publish 20260102-030405-abc123")
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

    settings = _settings(ctx, index=index)
    releasing = _release_options(gate, judge, (tolerance, max_shrink, max_bad), keep)
    with closing(open_engine(settings)) as engine:
        found = find_build(engine, settings.index, build_id)
        message = f"Index {settings.index} answers from build {found.id}."
        _release(engine, settings, found, releasing, message, as_json)


@app.command(epilog="Example: dupmae index verify --index notes")
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

    settings = _settings(ctx, index=index)
    with closing(open_engine(settings)) as engine:
        name = settings.index
        found = find_build(engine, name, build_id) if build_id else newest_build(engine, name)
        with show_count("verifying", found.passages or found.documents) as watch:
            verification = verify_build(engine, settings, found, lambda points: watch(points, 0))
    if as_json:
        typer.echo(verification.model_dump_json(indent=2))
    else:
        _console().print(f"Build {found.id} of index {found.index}", verification_table(verification), sep="\n")
    if not verification.ok:
        failed = ", ".join(check.name for check in verification.failed)
        raise VerificationFailed(f"build {found.id} of index {found.index} failed at: {failed}; build it again")


@app.command(epilog="Example: dupmae index rollback --index default")
def rollback(ctx: typer.Context, index: IndexName = None, as_json: AsJson = False) -> None:
    """Publish the ready build before the published one. Nothing is deleted."""
    from indexer.catalog import open_engine
    from indexer.catalog import rollback as roll_back

    settings = _settings(ctx, index=index)
    with closing(open_engine(settings)) as engine:
        found = roll_back(settings, engine, settings.index)
        _show(engine, found, f"Index {settings.index} answers from build {found.id}.", as_json)


@app.command(epilog="Example: dupmae index delete 20260102-030405-abc123")
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
    settings = _settings(ctx, index=index)
    with closing(open_engine(settings)) as engine:
        chosen = choose_spare(engine, settings.index, build_ids)
        names = ", ".join(build.id for build in chosen) or "none"
        if len(chosen) > 1 and not yes:
            typer.confirm(f"Delete {len(chosen)} builds of index {settings.index}: {names}?", abort=True, err=True)
        for build in chosen:
            engine.drop(build)
            remove_ledger(ledger_path(settings.data, build.index, build.id))
    if as_json:
        typer.echo(json.dumps([_facts(build, False) for build in chosen], indent=2))
    else:
        typer.echo(f"Deleted of index {settings.index}: {names}.")


@app.command(epilog="Example: dupmae index backup notes-2026-01-02.tar.zst --index notes")
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
    settings = _settings(ctx, index=index)
    with closing(open_engine(settings)) as engine:
        builds = choose_builds(engine, settings.index, build_id, every=every)
        with show_count("points", sum(build.passages or build.documents for build in builds)) as watch:
            kept = run(engine, settings, out, builds, lambda points: watch(points, 0))
    if as_json:
        typer.echo(kept.model_dump_json(exclude={"members"}, indent=2))
    else:
        points = sum(held.points for held in kept.builds)
        typer.echo(f"{out}: {len(kept.builds)} build(s) of index {kept.index}, {points:,} points.")


@app.command(epilog="Example: dupmae index restore notes-2026-01-02.tar.zst --index notes-again --no-publish")
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

    layout = _collection(preset or "laptop", collection or []) if preset or collection else None
    options = RestoreOptions(index=index, publish=live, collection=layout)
    settings = _settings(ctx)
    with closing(open_engine(settings)) as engine:
        with show_count("checking, MB", file.stat().st_size // 10**6) as watch:
            kept = read_backup(file, lambda position: watch(position // 10**6, 0))
        with show_count("points", sum(held.points for held in kept.builds)) as watch:
            builds = run(engine, settings, file, kept, options, lambda points: watch(points, 0))
        published = [_is_published(engine, build) for build in builds]
    if as_json:
        typer.echo(json.dumps(list(map(_facts, builds, published)), indent=2))
    else:
        for build, is_live in zip(builds, published, strict=True):
            state = "published" if is_live else f"not published (dupmae index publish {build.id} --index {build.index})"
            typer.echo(f"Build {build.id} of index {build.index} is restored, {state}.")


@app.command(epilog="Example: dupmae index mine beir/scifact train.jsonl --split train --ranks 10:100 --margin 5%")
def mine(
    ctx: typer.Context,
    queries: Annotated[Path, typer.Argument(help='{"query", "pos": [..]} a line, or a BEIR folder with judgements.')],
    out: Annotated[Path, typer.Argument(help="New file for training; a broken run goes on where it was.")],
    method: Annotated[Method, typer.Option(help="How the index is searched, or BM25.")] = "fused",
    index: IndexName = None,
    documents: Annotated[
        list[str] | None, typer.Option(help="For BM25: a source as `build` reads it, to search instead of the index.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of a BEIR folder: qrels/SPLIT.tsv.", show_default="train")] = None,
    exclude_split: Annotated[
        list[str] | None, typer.Option(help="Of a BEIR folder: what is judged there is never a negative.")
    ] = None,
    ranks: Annotated[str, typer.Option(help="FIRST:LAST hit that may be a negative; 1 is the best.")] = "10:100",
    draw: Annotated[int, typer.Option(min=1, help="Negatives for each query.")] = 15,
    margin: Annotated[
        str | None,
        typer.Option(
            help="Distance from the lowest positive: a share of its score (5%), an amount (1.5), or none.",
            show_default="5% with fused, cls and ot",
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep-negatives/--replace", help="What becomes of negatives that are there.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Queries searched at once.")] = 64,
    restart: Annotated[bool, typer.Option(help="Write OUT anew, whatever is left of another run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give the queries of a training file hard negatives: passages that a search ranks high and nobody called right."""
    from dataclasses import asdict

    from indexer.mine import MiningOptions
    from indexer.mine import mine as run
    from indexer.mine_sources import open_queries, open_ranker
    from indexer.negatives import RankWindow
    from indexer.report import mining_lines, show_count

    window, distance = _usage("--ranks", RankWindow.parse, ranks), _margin(margin, method)
    if (split or exclude_split) and not queries.is_dir():
        raise typer.BadParameter(f"{queries} is no BEIR folder, and only that has splits", param_hint="--split")
    if documents and method != "bm25":
        raise typer.BadParameter(f"{method} searches an index; only bm25 takes documents", param_hint="--documents")
    if out.exists() and not restart:  # said before anything is read, which may take long
        raise FileExistsError(f"{out} exists already; remove it, name another file, or --restart to write it anew")
    settings, left_out = _settings(ctx, index=index), Counter[str]()
    with (
        open_queries(queries, split or "train", exclude_split or [], left_out) as (records, hidden),
        _extra("train"),
        open_ranker(settings, method, documents or [], left_out) as ranker,
        show_count("mining", len(records)) as watch,
    ):
        options = MiningOptions(
            ranks=window,
            draw=draw,
            margin=distance,
            keep=keep,
            seed=seed,
            batch=batch,
            restart=restart,
            hidden=hidden,
        )
        tally = run(records, out, ranker, options, lambda tally: watch(tally.queries, tally.resumed))
    if as_json:
        typer.echo(json.dumps({"out": str(out), **asdict(tally), "left_out": left_out}, indent=2))
    else:
        _console().print(*mining_lines(out, tally, draw, left_out), sep="\n")


def evaluate(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="BEIR_DIR", help="corpus.jsonl, queries.jsonl and qrels/.")],
    split: Annotated[str, typer.Option(help="Judgements to use: qrels/SPLIT.tsv.")] = "test",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Write TREC run files into this folder.")] = None,
    artifact: ArtifactFolder = None,
    depth: Annotated[int | None, typer.Option(min=10, help="Candidates each side of a fused query brings.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep the index in this folder, for the next run.")] = None,
    passages: Annotated[
        bool,
        typer.Option("--passages/--cut", help="Index long documents as passages, or what the model reads at once."),
    ] = False,
) -> None:
    """Measure BM25, each side of the vector, and the fused score on a judged collection."""
    with _extra("eval"):
        from indexer.evaluate import EvaluationOptions
        from indexer.evaluate import evaluate as run
    from indexer.catalog import new_artifact, open_encoder
    from indexer.report import evaluation_lines, show_progress
    from indexer.sources import count_records
    from indexer.store import Chunking

    settings = _settings(ctx, artifact=artifact)
    encoder = open_encoder(settings, new_artifact(settings))
    chunking = Chunking() if passages else None
    options = EvaluationOptions(split=split, depth=depth or settings.depth, runs=runs, chunking=chunking)
    with tempfile.TemporaryDirectory() as scratch, show_progress(count_records([folder])) as progress:
        evaluation = run(folder, encoder, keep or Path(scratch), options, progress)
    _console().print(*evaluation_lines(evaluation), sep="\n")
    if json_file:
        json_file.write_text(evaluation.model_dump_json(indent=2) + "\n")


def _release_options(gate: bool, judge: str | None, limits: tuple[float, float, int], keep: int) -> "ReleaseOptions":
    """What `release` is told; a judged set that cannot be read is said before anything else is done."""
    from indexer.gate import Limits
    from indexer.judgement import read_judged
    from indexer.release import ReleaseOptions

    if judge and not gate:
        raise typer.BadParameter("--no-gate judges nothing; leave one of the two out", param_hint="--judge")
    tolerance, max_shrink, max_bad = limits
    allowed = Limits(tolerance=tolerance, max_shrink=max_shrink, max_bad=max_bad)
    return ReleaseOptions(gate=gate, judged=read_judged(judge) if judge else None, limits=allowed, keep=keep)


def _release(
    engine: "Engine",
    settings: IndexSettings,
    build: "Build",
    options: "ReleaseOptions",
    message: str,
    as_json: bool,
) -> None:
    from dataclasses import replace

    from indexer.release import release
    from indexer.report import release_lines, show_count

    if options.gate:
        with show_count("verifying", build.passages or build.documents) as watch:
            watched = replace(options, watch=lambda points: watch(points, 0))
            done = release(engine, settings, build, watched)
    else:
        done = release(engine, settings, build, options)
    if as_json:
        typer.echo(json.dumps(_facts(done.build, True) | {"removed": done.removed, "note": done.note}, indent=2))
    else:
        _console().print(message, *release_lines(done), sep="\n")


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Name the extra when one of its packages is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in {"bm25s", "ir_measures", "ray", "Stemmer"}:
            raise
        raise MissingExtra(f"{error.name} is not installed: pip install 'dupmae-search[{name}]'") from error


def _margin(text: str | None, method: Method) -> "Margin | None":
    from indexer.negatives import Margin

    scored = method in ("fused", "cls", "ot")
    if text == "none" or (text is None and not scored):
        return None
    if not scored:
        raise typer.BadParameter(f"{method} has no score of a positive to keep away from", param_hint="--margin")
    return _usage("--margin", Margin.parse, text or "5%")


def _usage(option: str, parse: Callable[[S], T], text: S) -> T:
    """What an option's text stands for; text that it cannot be is wrong usage."""
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _settings(ctx: typer.Context, **flags: object) -> IndexSettings:
    """The settings with the flags that were given, which win."""
    assert isinstance(ctx.obj, IndexSettings), "the root command puts the settings here"
    return ctx.obj.model_copy(update={name: value for name, value in flags.items() if value is not None})


def _fields(pairs: list[str]) -> "dict[str, FieldType]":
    from indexer.store import FieldType

    fields: dict[str, FieldType] = {}
    for pair in pairs:
        name, _, type = pair.partition("=")
        if not name or type not in get_args(FieldType):
            expected = ", ".join(get_args(FieldType))
            raise typer.BadParameter(f"{pair!r} is not NAME=TYPE, such as metadata.lang=keyword; types: {expected}")
        fields[name] = cast(FieldType, type)
    return fields


def _chunking(tokens: int | None, overlap: int | None, title: bool) -> "Chunking":
    from indexer.store import Chunking

    default = Chunking()
    return Chunking(tokens=tokens, overlap=default.overlap if overlap is None else overlap, title=title)


def _told(sources: list[str], format: str | None, columns: list[str]) -> str:
    """The sources as they were given, and how they are read."""
    formats = [f"--format {format}"] if format else []
    return " ".join([*sources, *formats, *(f"--map {each}" for each in columns)])


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a build as Ctrl-C does: what is written is made durable first."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _encoding(
    settings: IndexSettings, artifact: "Artifact", chunking: "Chunking | None", on: str, encoders: int
) -> "AbstractContextManager[Encoders] | None":
    """Where to encode; None for this process."""
    if on == "ray":
        from indexer.ray_encoders import encoding_on_ray

        return encoding_on_ray(settings, artifact, chunking, encoders)
    if encoders > 1:
        from indexer.encoders import encoding_apart

        return encoding_apart(settings, artifact, chunking, encoders)
    return None


def _collection(preset: Preset, pairs: list[str]) -> CollectionOptions:
    try:
        return parse_options(preset, pairs)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--collection") from error


def _is_published(engine: "Engine", build: "Build") -> bool:
    return build.index in engine.indexes() and engine.published(build.index).id == build.id


def _facts(build: "Build", published: bool) -> dict[str, object]:
    return build.model_dump(mode="json") | {"published": published}


def _show(engine: "Engine", build: "Build", message: str, as_json: bool) -> None:
    typer.echo(json.dumps(_facts(build, _is_published(engine, build)), indent=2) if as_json else message)


def _console() -> "Console":
    """Standard output without markup, since sources may hold brackets; wide where no terminal limits it."""
    from rich.console import Console

    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 120)
