"""`dupmae demo`: the documentation of the Python that runs, indexed once and served."""

from contextlib import closing
from pathlib import Path

from rich.console import Console

from indexer.build import BuildOptions, build_index, source_digest
from indexer.catalog import keep_artifact, new_artifact, open_encoder, open_engine, publish
from indexer.documents import Document
from indexer.judgement import Opened
from indexer.probing import make_probe_set
from indexer.report import show_progress
from indexer.stdlib import FIELDS, read_stdlib
from indexer.store import Build, Engine, IndexNotFound
from model.artifact import Artifact
from service.settings import Settings

INDEX = "demo"
QUERIES = ("how do I compress a file", "run a function every five seconds", "remove duplicates but keep the order")


def prepare(settings: Settings, sources: Path | None = None) -> None:
    """Publish the demo index, unless the published one holds this documentation in this model's vectors already.

    Args:
        settings: Where the index goes, and which model makes it.
        sources: A folder of Python sources; those of the running interpreter unless given.

    Raises:
        ArtifactError: The bundled model is missing or damaged.
        StoreError: The data folder cannot be written.
    """
    console = Console(stderr=True)
    with console.status("Reading the documentation of the standard library"):
        documents = [record for record in read_stdlib(sources) if isinstance(record, Document)]
    artifact = new_artifact(settings)
    with closing(open_engine(settings)) as engine:
        if _is_published(engine, artifact, documents):
            console.print(f"The index {INDEX!r} is up to date: {len(documents):,} documents.")
            return
        encoder = open_encoder(settings, keep_artifact(settings, artifact))
        options = BuildOptions(
            index=INDEX,
            fields=FIELDS,
            source="the documentation of the standard library",
            data=settings.data,
            total=len(documents),
        )
        with show_progress(len(documents)) as progress:
            build = build_index(engine, encoder, documents, options, progress)
        with closing(engine.open(INDEX, build.id)) as store:
            engine.save(build.model_copy(update={"probe": make_probe_set(Opened(store, encoder))}))
        publish(settings, engine, build)


def greet(address: str, build: Build) -> None:
    """Say where it is and what to try."""
    console = Console()
    console.print(
        f"\n  [bold]{address}[/bold]  {build.documents:,} entries of Python's own documentation\n", highlight=False
    )
    for query in QUERIES:
        console.print(f"  {address}/?q={query.replace(' ', '+')}", highlight=False, soft_wrap=True)
    console.print("\n  Ctrl-C stops it.\n")


def _is_published(engine: Engine, artifact: Artifact, documents: list[Document]) -> bool:
    try:
        build = engine.published(INDEX)
    except IndexNotFound:
        return False
    made_of = (build.fingerprint, build.source_digest)
    return build.passages > 0 and made_of == (artifact.fingerprint, source_digest(documents))
