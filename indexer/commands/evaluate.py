"""`dupmae evaluate`: how well a model finds, on a judged collection."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from indexer.commands.options import ArtifactFolder, extra, settings_of
from indexer.commands.printing import console


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
    with extra("eval"):
        from indexer.evaluate import EvaluationOptions
        from indexer.evaluate import evaluate as run
    from indexer.catalog import new_artifact, open_encoder
    from indexer.report import evaluation_lines, show_progress
    from indexer.sources import count_records
    from indexer.store import Chunking

    settings = settings_of(ctx, artifact=artifact)
    encoder = open_encoder(settings, new_artifact(settings))
    chunking = Chunking() if passages else None
    options = EvaluationOptions(split=split, depth=depth or settings.depth, runs=runs, chunking=chunking)
    with tempfile.TemporaryDirectory() as scratch, show_progress(count_records([folder])) as progress:
        evaluation = run(folder, encoder, keep or Path(scratch), options, progress)
    console().print(*evaluation_lines(evaluation), sep="\n")
    if json_file:
        json_file.write_text(evaluation.model_dump_json(indent=2) + "\n")
