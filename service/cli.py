"""The `dupmae` command: its root, and the commands that answer.

What takes long to import is imported by the command that needs it: `dupmae search` loads neither a web framework nor
a client it does not use, and the help nothing but typer (tests/test_contracts_imports.py). Every error that a domain
names ends here as one line and an exit code.
"""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.modes import Mode
from service.later import Group, list_them

if TYPE_CHECKING:
    from service.settings import Settings

app = typer.Typer(
    name="dupmae",
    cls=Group,
    help="Search with one model that gives a dense and a lexical vector in one pass, and one exact score.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended: 128 and the number of the signal."""


def _text(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise typer.BadParameter(f"{value!r} is not valid in the encoding of this terminal; send UTF-8") from error
    return value


Query = Annotated[str, typer.Argument(help="What to look for, in plain words.", callback=_text)]
Index = Annotated[str | None, typer.Option(help="Index to ask; DUPMAE_INDEX when not given.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Host = Annotated[str | None, typer.Option(help="Address to listen on; DUPMAE_HOST when not given.")]
Port = Annotated[int | None, typer.Option(min=0, max=65_535, envvar=["DUPMAE_PORT", "PORT"], help="Port to listen on.")]


def main() -> None:
    """Run the command line; exit with 0, 1 for an error that was named, 2 for wrong usage, 130 for Ctrl-C."""
    try:
        app()
    except Exception as error:  # sorted here, in the one place, into what a user can mend and our own defects
        if not isinstance(error, _named_errors()):
            raise
        print(f"dupmae: {error}", file=sys.stderr)
        sys.exit(INTERRUPTED if _interrupted(error) else 1)


@app.callback()
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=lambda value: _print_version(value))
    ] = False,
) -> None:
    """Read the settings once, for every command."""
    from service import settings

    ctx.obj = settings.load()


@app.command(epilog="Example: dupmae serve --port 9000")
def serve(ctx: typer.Context, host: Host = None, port: Port = None, index: Index = None) -> None:
    """Serve the indexes over HTTP until Ctrl-C or SIGTERM."""
    from service.server import run

    run(
        _changed(ctx, host=host, port=port, index=index),
        on_ready=lambda address, build: typer.echo(
            f"Serving index {build.index!r} ({build.documents:,} documents, build {build.id}) at {address}", err=True
        ),
    )


@app.command(epilog="Example: dupmae demo --port 9000")
def demo(
    ctx: typer.Context,
    host: Host = None,
    port: Port = None,
    then_serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Serve it, or only make the index.")] = True,
) -> None:
    """Index the documentation of the running Python with the bundled model, and serve it.

    The index is made once; a second start serves it at once.
    """
    from service.demo import INDEX, greet, prepare
    from service.server import check_address, run

    settings = _changed(ctx, host=host, port=port, index=INDEX)
    if "log_level" not in settings.model_fields_set:
        settings = settings.model_copy(update={"log_level": "warning"})
    if then_serve:
        check_address(settings)
    prepare(settings)
    if then_serve:
        run(settings, on_ready=greet)


@app.command(epilog='Example: dupmae search "compress a file" --index demo --filter metadata.kind=function --limit 3')
def search(
    ctx: typer.Context,
    query: Annotated[
        str | None,
        typer.Argument(
            help="What to look for; without it, each line of standard input or of a prompt.", callback=_text
        ),
    ] = None,
    index: Index = None,
    limit: Annotated[int, typer.Option(min=1, help="Results wanted.")] = 10,
    mode: Annotated[Mode, typer.Option(help="Exact sum of both parts, one part, or reciprocal rank fusion.")] = "fused",
    filter: Annotated[
        list[str] | None,
        typer.Option(help="FIELD=VALUE, FIELD=FROM..TO or the API's JSON, of declared fields; all given must hold."),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each word adds to a score.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask an index, without a server; exit code 1 when nothing was found, as grep has it."""
    from service.asking import Options, parse_filters, read_queries
    from service.searcher import open_searchers
    from service.terminal import Session

    settings = _changed(ctx, index=index)
    if limit > settings.max_limit:
        raise typer.BadParameter(f"{limit} results; at most DUPMAE_MAX_LIMIT={settings.max_limit} are returned")
    with open_searchers(settings) as searchers:
        searcher = searchers.open(settings.index)
        options = Options(mode, limit, parse_filters(filter or [], searcher.build.fields), explain)
        session = Session(searcher, options, as_json=as_json)
        found = session.ask(query) if query is not None else session.ask_all(read_queries())
    raise typer.Exit(0 if found else 1)


@app.command(epilog='Example: dupmae explain "compress a file" zipfile.ZipFile --index demo')
def explain(
    ctx: typer.Context,
    query: Query,
    document_id: Annotated[str, typer.Argument(metavar="DOC_ID", callback=_text)],
    index: Index = None,
    limit: Annotated[int, typer.Option(min=1, help="Results of the search that it is or is not in.")] = 10,
    rank: Annotated[bool, typer.Option(help="Find its true rank, which may read every document.")] = True,
    as_json: AsJson = False,
) -> None:
    """Show what each word adds to the score of one document, found or not; of a long one, of its best passage."""
    from time import perf_counter

    from service.explain_terminal import show_explanation
    from service.inquiry import Inquiry, explain_document, timed
    from service.searcher import open_searchers

    settings = _changed(ctx, index=index)
    with open_searchers(settings) as searchers:
        searcher = searchers.open(settings.index)
        began = perf_counter()
        encoding = searcher.encode(query)
        encoded = perf_counter()
        inquiry = Inquiry(query=query, encoding=encoding, limit=limit, rank=rank)
        answer = explain_document(searcher, inquiry, document_id)
        timed(answer, {"encode": encoded - began, "explain": perf_counter() - encoded})
    if as_json:
        typer.echo(answer.model_dump_json(exclude_none=True, indent=2))
    else:
        show_explanation(answer, document_id)


list_them(app)


def _changed(ctx: typer.Context, **flags: str | int | None) -> "Settings":
    """The settings with the flags that were given, which win."""
    from service.settings import Settings

    assert isinstance(ctx.obj, Settings)
    return ctx.obj.model_copy(update={name: value for name, value in flags.items() if value is not None})


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"dupmae-search {version('dupmae-search')}")
        raise typer.Exit


def _interrupted(error: Exception) -> bool:
    from model.options import Interrupted

    return isinstance(error, Interrupted) or isinstance(error.__cause__, KeyboardInterrupt)


def _named_errors() -> tuple[type[Exception], ...]:
    """What a user can mend: the errors whose message names the value and the remedy."""
    from indexer.build import BuildError
    from indexer.chunking import ChunkingError
    from indexer.encoders import EncoderDied
    from indexer.store import StoreError
    from model.artifact import ArtifactError
    from model.commands.options import MissingExtra
    from model.lines import SourceError
    from model.options import TrainingError
    from model.session import ProviderError
    from service.keys import KeysError
    from service.searcher import DocumentNotFound, QueryRefused
    from service.settings import SettingsError

    return (
        ArtifactError,
        BuildError,
        ChunkingError,
        DocumentNotFound,
        EncoderDied,
        KeysError,
        MissingExtra,
        OSError,
        ProviderError,
        QueryRefused,
        SettingsError,
        SourceError,
        StoreError,
        TrainingError,
    )
