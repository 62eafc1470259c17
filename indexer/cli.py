"""`dupmae index ...` and `dupmae evaluate`.

Commands raise what the packages raise; `service.cli.main` turns it into one line and an exit code. Whatever takes long
to import is imported by the command that needs it, so that `--help` is quick.
"""

import json
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer
from rich.console import Console

from indexer.settings import IndexSettings
from model.cli import MissingExtra

if TYPE_CHECKING:
    from indexer.store import Build, Engine, FieldType

app = typer.Typer(help="Build, publish and remove indexes.", no_args_is_help=True)

IndexName = Annotated[str | None, typer.Option("--index", help="Name of the index; DUPMAE_INDEX when not given.")]
BuildId = Annotated[str, typer.Argument(help="As `dupmae index list` shows it.")]
ArtifactFolder = Annotated[Path | None, typer.Option(help="Artifact folder; the bundled model when not given.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command(epilog="Example: dupmae index build articles.jsonl.gz --field metadata.lang=keyword")
def build(
    ctx: typer.Context,
    sources: Annotated[list[str], typer.Argument(help="BEIR folders, JSON lines (.gz, .xz, .zst) or - for stdin.")],
    index: IndexName = None,
    artifact: ArtifactFolder = None,
    field: Annotated[list[str] | None, typer.Option(help="NAME=TYPE: a field that filters may use.")] = None,
    dead_letters: Annotated[Path | None, typer.Option(help="File for bad records; else in the data folder.")] = None,
    max_bad: Annotated[int, typer.Option(min=0, help="Bad records that are put up with.")] = 100,
    live: Annotated[bool, typer.Option("--publish/--no-publish", help="Answer from it when it is ready.")] = True,
    as_json: AsJson = False,
) -> None:
    """Read documents, encode them and make them the new content of an index.

    What is published answers until the new build is ready, and stays if the build fails.
    """
    from indexer.build import BuildOptions, build_index
    from indexer.catalog import keep_artifact, new_artifact, open_encoder, open_engine
    from indexer.documents import count_records, read_documents
    from indexer.report import describe, show_progress

    settings = _settings(ctx, artifact=artifact, index=index)
    options = BuildOptions(
        index=settings.index,
        fields=_fields(field or []),
        source=" ".join(sources),
        max_bad=max_bad,
        dead_letters=dead_letters or settings.data / "dead-letters" / f"{settings.index}.jsonl",
    )
    with closing(open_engine(settings)) as engine:
        encoder = open_encoder(settings, keep_artifact(settings, new_artifact(settings)))
        with show_progress(count_records(sources)) as progress:
            ready = build_index(engine, encoder, read_documents(sources, sys.stdin.buffer), options, progress)
        if live:
            engine.publish(ready)
        _show(engine, ready, describe(ready, live, options.dead_letters), as_json)


@app.command("list", epilog="Example: dupmae index list --json")
def list_builds(ctx: typer.Context, index: IndexName = None, as_json: AsJson = False) -> None:
    """Show the builds of an index, newest first."""
    from indexer.catalog import open_engine
    from indexer.report import builds_table

    settings = _settings(ctx, index=index)
    with closing(open_engine(settings)) as engine:
        builds = [(build, _is_published(engine, build)) for build in engine.builds(settings.index)]
    if as_json:
        typer.echo(json.dumps([_facts(*row) for row in builds], indent=2))
    else:
        _console().print(builds_table(builds))


@app.command(epilog="Example: dupmae index publish 20260102-030405-abc123")
def publish(ctx: typer.Context, build_id: BuildId, index: IndexName = None, as_json: AsJson = False) -> None:
    """Let an index answer from another of its builds."""
    from indexer.catalog import find_build, open_engine

    settings = _settings(ctx, index=index)
    with closing(open_engine(settings)) as engine:
        found = find_build(engine, settings.index, build_id)
        engine.publish(found)
        _show(engine, found, f"Index {settings.index} answers from build {found.id}.", as_json)


@app.command(epilog="Example: dupmae index rollback --index default")
def rollback(ctx: typer.Context, index: IndexName = None, as_json: AsJson = False) -> None:
    """Publish the ready build before the published one. Nothing is deleted."""
    from indexer.catalog import open_engine
    from indexer.catalog import rollback as roll_back

    settings = _settings(ctx, index=index)
    with closing(open_engine(settings)) as engine:
        found = roll_back(engine, settings.index)
        _show(engine, found, f"Index {settings.index} answers from build {found.id}.", as_json)


@app.command(epilog="Example: dupmae index delete 20260102-030405-abc123")
def delete(ctx: typer.Context, build_id: BuildId, index: IndexName = None, as_json: AsJson = False) -> None:
    """Remove a build that is not published."""
    from indexer.catalog import find_build, open_engine

    settings = _settings(ctx, index=index)
    with closing(open_engine(settings)) as engine:
        found = find_build(engine, settings.index, build_id)
        engine.drop(found)
        _show(engine, found, f"Build {found.id} of index {settings.index} is deleted.", as_json)


def evaluate(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="BEIR_DIR", help="corpus.jsonl, queries.jsonl and qrels/.")],
    split: Annotated[str, typer.Option(help="Judgements to use: qrels/SPLIT.tsv.")] = "test",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Write TREC run files into this folder.")] = None,
    artifact: ArtifactFolder = None,
    depth: Annotated[int | None, typer.Option(min=10, help="Candidates each side of a fused query brings.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep the index in this folder, for the next run.")] = None,
) -> None:
    """Measure BM25, each side of the vector, and the fused score on a judged collection."""
    try:
        from indexer.evaluate import EvaluationOptions
        from indexer.evaluate import evaluate as run
    except ModuleNotFoundError as error:
        if error.name not in {"bm25s", "ir_measures", "Stemmer"}:
            raise
        raise MissingExtra(f"{error.name} is not installed: pip install 'dupmae-search[eval]'") from error
    from indexer.catalog import new_artifact, open_encoder
    from indexer.documents import count_records
    from indexer.report import evaluation_lines, show_progress

    settings = _settings(ctx, artifact=artifact)
    encoder = open_encoder(settings, new_artifact(settings))
    options = EvaluationOptions(split=split, depth=depth or settings.depth, runs=runs)
    with tempfile.TemporaryDirectory() as scratch, show_progress(count_records([folder])) as progress:
        evaluation = run(folder, encoder, keep or Path(scratch), options, progress)
    _console().print(*evaluation_lines(evaluation), sep="\n")
    if json_file:
        json_file.write_text(evaluation.model_dump_json(indent=2) + "\n")


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


def _is_published(engine: "Engine", build: "Build") -> bool:
    return build.index in engine.indexes() and engine.published(build.index).id == build.id


def _facts(build: "Build", published: bool) -> dict[str, object]:
    return build.model_dump(mode="json") | {"published": published}


def _show(engine: "Engine", build: "Build", message: str, as_json: bool) -> None:
    typer.echo(json.dumps(_facts(build, _is_published(engine, build)), indent=2) if as_json else message)


def _console() -> Console:
    """Standard output without markup, since sources may hold brackets; wide where no terminal limits it."""
    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 120)
