"""`dupmae model score` and `teach`: what teachers say of training records."""

from pathlib import Path
from typing import Annotated

import typer

from model.commands.options import Restart, train_extra
from model.flags import flags
from model.score import ScoreOptions


@flags(ScoreOptions)
def score(
    teacher: Annotated[Path, typer.Argument(help="Cross-encoder or bi-encoder of `transformers`, or a checkpoint.")],
    source: Annotated[Path, typer.Argument(metavar="IN", help='{"query", "pos": [..], "neg": [..]} a line.')],
    out: Annotated[Path, typer.Argument(help="New file: the same records with pos_scores and neg_scores.")],
    options: ScoreOptions,
    restart: Restart = False,
) -> None:
    """Add a teacher's scores to training records, for `finetune` to distil from.

    An interrupted run goes on where it was when it is started again in the same way.
    """
    with train_extra():
        from model.distributed import joined
        from model.teacher import load_teacher
    from model.records import Records, read_examples
    from model.score import agreement
    from model.score import score as write

    with joined(options.device) as ranks, Records(source) as records:
        try:
            loaded = load_teacher(teacher, options, ranks.device)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        written, resumed = write(loaded, records, out, options, restart=restart)
        skipped = "".join(f", left out {count:,} {what}" for what, count in records.skipped.items())
    pairs, right = agreement(read_examples(out))
    typer.echo(f"{out}: {written:,} records ({resumed:,} of them from the run before){skipped}; {loaded.what}")
    if pairs:
        typer.echo(f"A positive is above a negative of its record in {right / pairs:.1%} of {pairs:,} pairs")


@flags(ScoreOptions, leave_out=("scale", "similarity", "batch"))
def teach(
    teacher: Annotated[Path, typer.Argument(help="Sentence encoder in the layout of sentence-transformers.")],
    files: Annotated[list[Path], typer.Argument(help='{"query", "pos": [..], "neg": [..]} a line.')],
    options: ScoreOptions,
    restart: Annotated[bool, typer.Option("--restart", help="Replace what is there.")] = False,
) -> None:
    """Keep what a sentence encoder and BM25 say of every query and passage, for `finetune --teach-weight`.

    FILE.teaching gets the encoder's vectors and the words of each text, so that in training every passage of a batch
    has a score for every query of it. BM25 weighs words over the passages of each file, as if it were a collection.
    """
    with train_extra():
        import numpy as np

        from model.distributed import joined
        from model.teacher import digest, load_bi_encoder
    from rich.console import Console
    from rich.progress import track

    from model.records import Records
    from model.teaching import beside
    from model.teaching import teach as write

    with joined(options.device) as ranks:
        try:
            encoder = load_bi_encoder(teacher, options.model_copy(update={"similarity": "cosine"}), ranks.device)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        for file in files:
            with Records(file) as records:
                shown = track(records, description=file.name, console=Console(stderr=True))
                facts = write(
                    records,
                    shown,
                    lambda queries, passages: np.array([*encoder.queries(queries), *encoder.passages(passages)]),
                    digest(teacher),
                    restart=restart,
                )
            typer.echo(f"{beside(file)}: {facts.texts:,} texts, {facts.passages:,} of them passages")
