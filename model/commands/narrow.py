"""`dupmae model narrow`: which words the model may add to a text."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

import typer

from model.commands.options import Out, Restart, Texts, train_extra
from model.options import TrainingError


def narrow(
    start: Annotated[Path, typer.Argument(help="Checkpoint that `balance` or `finetune` wrote.")],
    out: Out,
    texts: Texts,
    share: Annotated[
        float, typer.Option(min=0.5, max=1, help="Of the words that these texts are given without holding them.")
    ] = 0.99,
    k: Annotated[
        int | None, typer.Option(min=1, help="Terms a text keeps, queries too; those of a passage in training.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=8, help="Of a text that are read.")] = 256,
    sample: Annotated[
        int, typer.Option(min=1, help="Texts, from the beginning of each file the same number.")
    ] = 20_000,
    restart: Restart = False,
) -> None:
    """Leave out of the words that may be added to a text those that hardly any text is given; encoding gets faster.

    A text is still given every word that it holds. Give passages and queries, of all kinds that will be searched.
    """
    with train_extra():
        from model.checkpoint import load
        from model.corpus import read_texts
        from model.expansion import narrowed

    if out.exists() and not restart:
        raise TrainingError(f"{out} is there already; name another folder, or give --restart to replace it")
    checkpoint = load(start)
    k = k or checkpoint.facts.k_document or 128
    read = saying(chain.from_iterable(islice(read_texts([file]), -(-sample // len(texts))) for file in texts))
    after = narrowed(checkpoint, read, share=share, max_tokens=max_tokens, k=k)
    after.save(out)
    typer.echo(f"{out}: {after.facts.history[-1]}")


def saying(texts: Iterable[str]) -> Iterator[str]:
    """The same, with a line for each thousand."""
    for count, text in enumerate(texts, start=1):
        yield text
        if count % 1000 == 0:
            typer.echo(f"{count:,} texts", err=True)
