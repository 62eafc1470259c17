"""`dupmae model export`: a checkpoint to an artifact."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.artifact import Precision
from model.commands.options import say_skipped, train_extra

if TYPE_CHECKING:
    from model.export import Facts


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder that `dupmae model finetune` wrote.")],
    out: Annotated[Path, typer.Argument(help="New artifact folder; must not exist.")],
    precision: Annotated[Precision, typer.Option(help="int8 for CPUs, fp16 for GPUs, fp32 for both.")] = "int8",
    facts: Annotated[Path | None, typer.Option(help="JSON file: name, licence, k_query, max_query_tokens, ...")] = None,
    card: Annotated[Path | None, typer.Option(help="Model card in Markdown; a stub when not given.")] = None,
    texts: Annotated[Path | None, typer.Option(help="Texts to compare on; else docstrings of Python.")] = None,
    judge: Annotated[
        list[Path] | None, typer.Option(help="Held-out records, see finetune, to judge on; may be repeated.")
    ] = None,
) -> None:
    """Write the artifact of a checkpoint, after comparing it with PyTorch on real text.

    With --judge both rank all passages of each file, and an artifact that finds less than the network is not written.
    """
    with train_extra():
        from model.checkpoint import load
        from model.corpus import read_texts
        from model.export import default_facts, docstrings, read_facts
        from model.export import export as write
        from model.records import Records

    judged = [Records(file) for file in judge or ()]
    say_skipped(judged)
    loaded = load(checkpoint)
    said = default_facts(out.name, loaded.model.encoder, loaded.facts)
    if facts:
        said = read_facts(facts, said)
    artifact = write(
        loaded.model.encoder,
        loaded.tokenizer,
        out,
        precision=precision,
        facts=said,
        card=card.read_text(encoding="utf-8") if card else _stub(said),
        texts=list(islice(read_texts([texts]), 100)) if texts else docstrings(100),
        judged=judged,
        say=typer.echo,
    )
    typer.echo(f"{out}: {artifact.size / 1e6:.1f} MB, fingerprint {artifact.fingerprint[:12]}")
    if not judged:
        typer.echo(
            "Whether it ranks as well as the network was not judged: give held-out records with --judge", err=True
        )


def _stub(facts: "Facts") -> str:
    return (
        f"# {facts.name}\n\nStarted from {facts.base_model}; licence: {facts.licence}.\n\n"
        "Nobody has described this model's data and limits yet.\n"
    )
