"""`dupmae index estimate`: what an index will take."""

from typing import Annotated

import typer

from indexer.collection import Preset
from indexer.commands.options import (
    ArtifactFolder,
    AsJson,
    Columns,
    FormatOption,
    collection_of,
    parsed,
    settings_of,
)
from indexer.commands.printing import console


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
    from indexer.sources import ReadOptions, parse_columns, read_documents, standard_input

    reading = ReadOptions(format, parsed("--map", parse_columns, map or []))
    options = CostOptions(sample=sample, workers=workers, collection=collection_of(preset, collection or []))
    settings = settings_of(ctx, artifact=artifact)
    encoder = open_encoder(settings, new_artifact(settings))
    with show_reading(read_documents(sources, standard_input(), reading)) as records:
        cost = estimate_cost(encoder, records, options)
    if as_json:
        typer.echo(cost.model_dump_json(indent=2))
    else:
        console().print(cost_table(cost))
