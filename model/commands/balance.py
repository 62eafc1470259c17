"""`dupmae model balance`: how much words count."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from model.commands.options import Out, Restart, train_extra
from model.options import FinetuneOptions, TrainingError


def balance(
    start: Annotated[Path, typer.Argument(help="Checkpoint that `finetune` wrote.")],
    out: Out,
    files: Annotated[list[Path], typer.Argument(help="Held-out records; each counts the same.")],
    k_query: Annotated[int, typer.Option(min=1, help="Terms a query keeps.")] = 64,
    k_document: Annotated[int, typer.Option(min=1, help="Terms a passage keeps.")] = 128,
    max_tokens: Annotated[int, typer.Option(min=8, help="Longest passage.")] = 256,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="Of products.")] = "fp32",
    restart: Restart = False,
) -> None:
    """Choose how much words count against the [CLS] vector, on records that nothing was trained on.

    Prints nDCG@10 for each factor of the words' part of the score, and writes the checkpoint with the best one.
    """
    with train_extra():
        from model.balance import balanced, best, measure
        from model.checkpoint import load
    from model.records import Records

    if out.exists() and not restart:
        raise TrainingError(f"{out} is there already; name another folder, or give --restart to replace it")
    options = FinetuneOptions(
        query_tokens=64, document_tokens=max_tokens, k_query=k_query, k_document=k_document, precision=precision
    )
    checkpoint = load(start)
    found = measure(checkpoint, [Records(file) for file in files], options)
    typer.echo("  ".join(("factor", "  mean", *(file.stem for file in files))))
    for factor, values in found.items():
        row = "  ".join(f"{value:.3f}" for value in (sum(values) / len(values), *values))
        typer.echo(f"{factor:6g}   {row}")
    chosen = best(found)
    after = balanced(checkpoint, chosen)
    facts = after.facts.model_copy(update={"k_query": k_query, "k_document": k_document})
    after._replace(facts=facts).save(out)
    typer.echo(f"{out}: words count {chosen:g} times what they did")
