"""`dupmae index build`: documents to an index that answers from them."""

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer

from indexer.collection import Preset
from indexer.commands.options import (
    ArtifactFolder,
    AsJson,
    Columns,
    FormatOption,
    IndexName,
    collection_of,
    extra,
    parsed,
    settings_of,
)
from indexer.commands.printing import show_build
from indexer.commands.publish import (
    Gate,
    Judge,
    Keep,
    MaxBad,
    MaxShrink,
    Tolerance,
    release_build,
    release_options,
)
from indexer.settings import IndexSettings

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from indexer.encoders import Encoders
    from indexer.store import Chunking, FieldType
    from model.artifact import Artifact


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
    from indexer.sources import ReadOptions, count_records, parse_columns, read_documents, standard_input, unread_files

    reading = ReadOptions(format, parsed("--map", parse_columns, map or []))
    settings = settings_of(ctx, artifact=artifact, index=index)
    options = BuildOptions(
        index=settings.index,
        fields=_fields(field or []),
        source=_told(sources, format, map or []),
        chunking=_chunking(passage_tokens, overlap, title),
        max_bad=max_bad,
        dead_letters=dead_letters or settings.data / "dead-letters" / f"{settings.index}.jsonl",
        collection=collection_of(preset, collection or []),
        data=settings.data,
        restart=restart,
        reuse=reuse,
        patience_s=patience,
    )
    releasing = release_options(gate, judge, (tolerance, max_shrink, max_bad), keep) if live else None
    with closing(open_engine(settings)) as engine, _terminable():
        artifact_kept = keep_artifact(settings, new_artifact(settings))
        encoder = open_encoder(settings, artifact_kept)
        if unread := unread_files(sources, reading):
            typer.echo(
                f"Not read: {', '.join(f'{count} {suffix}' for suffix, count in unread.most_common())}", err=True
            )
        with (
            show_progress(total := count_records(sources, reading)) as bar,
            exposed(settings.index, bar, port=metrics_port, file=metrics_file) as (progress, _),
            extra("ray"),
        ):
            encoding = _encoding(settings, artifact_kept, options.chunking, on, encoders)
            records = read_documents(sources, standard_input(), reading)
            ready = build_index(engine, encoder, records, replace(options, total=total), progress, encoding=encoding)
        message = describe(ready, live, options.dead_letters)
        if releasing:
            release_build(engine, settings, ready, releasing, message, as_json)
        else:
            show_build(engine, ready, message, as_json)


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
