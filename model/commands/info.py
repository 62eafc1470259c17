"""`dupmae model info`: a look at an artifact."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from model.artifact import Manifest


def info(
    folder: Annotated[Path | None, typer.Argument(help="Artifact folder; the bundled model when not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Verify an artifact and show its manifest."""
    from model.artifact import BUNDLED, Artifact

    manifest = Artifact.open(folder or BUNDLED).manifest
    typer.echo(manifest.model_dump_json(indent=2) if as_json else "\n".join(_lines(manifest)))


def _lines(manifest: "Manifest") -> list[str]:
    return [
        f"{manifest.name} ({manifest.precision}, {manifest.licence}, from {manifest.base_model})",
        f"  fingerprint  {manifest.fingerprint}",
        f"  vectors      [CLS] {manifest.dense_dim} dimensions, {manifest.vocabulary_size:,} terms "
        f"({manifest.k_query} kept per query, {manifest.k_document} per document)",
        *(
            ["  rarity       an index multiplies a query's words by how rare they are in it"]
            if manifest.rarity_weight
            else []
        ),
        f"  lengths      {manifest.max_query_tokens} tokens per query, {manifest.max_document_tokens} per document",
        *(
            f"  {collection:12} " + ", ".join(f"{metric} {value:g}" for metric, value in figures.items())
            for collection, figures in manifest.evaluation.items()
        ),
    ]
