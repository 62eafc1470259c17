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
    dense_dim: Annotated[
        int | None, typer.Option(min=1, help="Keep so many dimensions of the [CLS] vector, the strongest, first.")
    ] = None,
    log1p: Annotated[
        float | None, typer.Option(min=0.01, help="Take log(1 + this * weight) of each word's weight first.")
    ] = None,
    rarity: Annotated[
        bool, typer.Option("--rarity", help="Let an index multiply a query's words by how rare they are in it.")
    ] = False,
    restart: Restart = False,
) -> None:
    """Choose how much words count against the [CLS] vector, on records that nothing was trained on.

    Prints nDCG@10 for each factor of the words' part of the score (with --rarity, for what a nat of rarity is worth),
    and writes the checkpoint with the smallest of the best ones.

    Example: dupmae model balance checkpoints/fused checkpoints/balanced dev.jsonl --log1p 1 --rarity
    """
    with train_extra():
        from model.balance import balanced, best, measure, saturated
        from model.checkpoint import load, with_heads
    from model.records import Records

    if out.exists() and not restart:
        raise TrainingError(f"{out} is there already; name another folder, or give --restart to replace it")
    options = FinetuneOptions(
        query_tokens=64, document_tokens=max_tokens, k_query=k_query, k_document=k_document, precision=precision
    )
    checkpoint = with_heads(load(start), dense_dim=dense_dim)
    if log1p is not None:
        checkpoint = saturated(checkpoint, log1p)
    found = measure(checkpoint, [Records(file) for file in files], options, rarity=rarity)
    typer.echo("  ".join(("factor", "  mean", *(file.stem for file in files))))
    for factor, values in found.items():
        row = "  ".join(f"{value:.3f}" for value in (sum(values) / len(values), *values))
        typer.echo(f"{factor:6g}   {row}")
    chosen = best(found)
    after = balanced(checkpoint, chosen, rarity=rarity)
    facts = after.facts.model_copy(update={"k_query": k_query, "k_document": k_document})
    after._replace(facts=facts).save(out)
    what = f"a nat of rarity is worth {chosen:g}" if rarity else f"words count {chosen:g} times what they did"
    typer.echo(f"{out}: {what}")
