"""`dupmae model ...`: look at an artifact, make one from a checkpoint.

Commands raise what the packages raise; the root command turns it into one line and an exit code. Torch is imported by
the command that needs it, and only there.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from model.artifact import Manifest
    from model.export import Facts

app = typer.Typer(help="Look at models and export them.", no_args_is_help=True)


class MissingExtra(Exception):
    """A command needs packages that are not installed; the message names the extra."""


@app.command(epilog="Example: dupmae model info model/pretrained --json")
def info(
    folder: Annotated[Path | None, typer.Argument(help="Artifact folder; the bundled model when not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Verify an artifact and show its manifest."""
    from model.artifact import BUNDLED, Artifact

    manifest = Artifact.open(folder or BUNDLED).manifest
    typer.echo(manifest.model_dump_json(indent=2) if as_json else "\n".join(_lines(manifest)))


@app.command(epilog="Example: dupmae model export checkpoints/fused my-model --precision int8")
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder that `dupmae model finetune` wrote.")],
    out: Annotated[Path, typer.Argument(help="New artifact folder; must not exist.")],
    precision: Annotated[Literal["fp32", "int8"], typer.Option(help="int8 for CPUs, fp32 for all else.")] = "int8",
    facts: Annotated[Path | None, typer.Option(help="JSON file: name, licence, k_query, max_query_tokens, ...")] = None,
    card: Annotated[Path | None, typer.Option(help="Model card in Markdown; a stub when not given.")] = None,
    texts: Annotated[Path | None, typer.Option(help="Texts to compare on; else docstrings of Python.")] = None,
) -> None:
    """Write the artifact of a checkpoint, after comparing it with PyTorch on real text."""
    try:
        from model.checkpoint import load
        from model.corpus import read_texts
        from model.export import Facts, docstrings
        from model.export import export as write
    except ModuleNotFoundError as error:
        raise MissingExtra(f'{error.name} is not installed: pip install "dupmae-search[train]"') from error
    from itertools import islice

    loaded = load(checkpoint)
    said = Facts.model_validate_json(facts.read_bytes()) if facts else Facts(name=out.name)
    if not said.training:
        said = said.model_copy(update={"training": {"runs": list(loaded.facts.history)}})
    artifact = write(
        loaded.model.encoder,
        loaded.tokenizer,
        out,
        precision=precision,
        facts=said,
        card=card.read_text(encoding="utf-8") if card else _stub(said),
        texts=list(islice(read_texts([texts]), 100)) if texts else docstrings(100),
    )
    typer.echo(f"{out}: {artifact.size / 1e6:.1f} MB, fingerprint {artifact.fingerprint[:12]}")


def _lines(manifest: "Manifest") -> list[str]:
    return [
        f"{manifest.name} ({manifest.precision}, {manifest.licence}, from {manifest.base_model})",
        f"  fingerprint  {manifest.fingerprint}",
        f"  vectors      [CLS] {manifest.dense_dim} dimensions, {manifest.vocabulary_size:,} terms "
        f"({manifest.k_query} kept per query, {manifest.k_document} per document)",
        f"  lengths      {manifest.max_query_tokens} tokens per query, {manifest.max_document_tokens} per document",
        *(
            f"  {collection:12} " + ", ".join(f"{metric} {value:.3f}" for metric, value in figures.items())
            for collection, figures in manifest.evaluation.items()
        ),
    ]


def _stub(facts: "Facts") -> str:
    return (
        f"# {facts.name}\n\nStarted from {facts.base_model}; licence: {facts.licence}.\n\n"
        "Nobody has described this model's data and limits yet.\n"
    )
