"""`dupmae model pretrain`, `warm-start` and `finetune`: from one checkpoint to the next."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from model.commands.options import (
    ActivationRule,
    DenseDim,
    Out,
    Restart,
    Start,
    Texts,
    say_skipped,
    train_extra,
)
from model.flags import flags
from model.options import FinetuneOptions, PretrainOptions, TrainingError

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint
    from model.distributed import Ranks


@flags(PretrainOptions)
def pretrain(
    start: Start,
    out: Out,
    texts: Texts,
    options: PretrainOptions,
    restart: Restart = False,
    random_weights: Annotated[bool, typer.Option(help="START has a config and a tokenizer; draw the weights.")] = False,
    dense_dim: DenseDim = None,
    activation: ActivationRule = None,
    tokens: Annotated[
        Path | None, typer.Option(help="Keeps tokenized text; `tokens` beside OUT when not given.")
    ] = None,
) -> None:
    """Train on raw text: masked words, the [CLS] decoder, the bag of words.

    OUT.run gets the log, TensorBoard events, plots, and the state that the same command goes on from if it was
    interrupted or killed. Start it with torchrun for several GPUs; the batch is that of all of them.
    """
    with train_extra():
        from model import pretrain as loop
        from model.checkpoint import load, with_heads
        from model.distributed import joined
        from model.tokens import tokenized
    with joined(options.device, options.seed) as ranks:
        run = begin(out, restart, ranks)
        checkpoint = with_heads(load(start, random_weights=random_weights), dense_dim=dense_dim, activation=activation)
        cache = tokens or out.parent / "tokens"
        if ranks.is_first:
            tokenized(texts, checkpoint.tokenizer, options.max_tokens - 2, cache)
        ranks.wait()
        runs = tokenized(texts, checkpoint.tokenizer, options.max_tokens - 2, cache)
        trained = loop.pretrain(checkpoint, runs, options, ranks, run)
        if ranks.is_first:
            finish(trained, out, run)


def warm_start(
    start: Start,
    out: Out,
    texts: Texts,
    teacher: Annotated[
        Path | None, typer.Option(help="A mean-pooling sentence encoder with START's tokenizer.")
    ] = None,
    sample: Annotated[int, typer.Option(min=100, help="Texts to fit on, from the beginning of the files.")] = 4000,
    words: Annotated[
        Literal["average", "rarity"],
        typer.Option(help="A term counts above its own average, or a text's own words by how rare they are."),
    ] = "average",
    restart: Restart = False,
) -> None:
    """Fit the [CLS] projection and the term weights in closed form, so that fine-tuning starts from a useful model.

    The projection comes near to the teacher's vectors; without a teacher it whitens START's own [CLS] states. Choose
    `--words rarity` for a head that pre-training has taught to name the words of a text.
    """
    with train_extra():
        from model.checkpoint import load
        from model.corpus import read_texts
        from model.warm_start import calibrate_terms, fit_projection, mean_pooled, spread_projection, weigh_words

    if out.exists() and not restart:
        raise TrainingError(f"{out} is there already; name another folder, or give --restart to replace it")
    checkpoint, seen = load(start), list(islice(read_texts(texts), sample))
    if teacher:
        try:
            cosine = fit_projection(checkpoint, mean_pooled(load(teacher).model.encoder.eval()), seen)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--teacher") from error
        run = f"warm start from {teacher.name}, mean cosine {cosine:.3f}"
    else:
        spread_projection(checkpoint, seen)
        run = "warm start, whitened"
    if words == "rarity":
        run += f", {weigh_words(checkpoint, seen):,} words by rarity"
    else:
        calibrate_terms(checkpoint, seen[: max(100, sample // 4)])
    checkpoint._replace(facts=checkpoint.facts.after(run)).save(out)
    typer.echo(f"{out}: {run}")


@flags(FinetuneOptions)
def finetune(
    start: Start,
    out: Out,
    files: Annotated[list[Path], typer.Argument(help='{"query", "pos": [..], "neg": [..]} a line.')],
    options: FinetuneOptions,
    restart: Restart = False,
    dense_dim: DenseDim = None,
    activation: ActivationRule = None,
    dev: Annotated[Path | None, typer.Option(help="Held-out records; nDCG@10 on them goes to the log.")] = None,
) -> None:
    """Train on queries and passages with the fused score, with or without a teacher's scores.

    OUT.run gets what `pretrain` leaves there, and an interrupted run goes on in the same way.
    """
    with train_extra():
        from model import finetune as loop
        from model.checkpoint import load, with_heads
        from model.distributed import joined
        from model.records import Records
    with joined(options.device, options.seed) as ranks:
        run = begin(out, restart, ranks)
        checkpoint = with_heads(load(start), dense_dim=dense_dim, activation=activation)
        records = [Records(file) for file in files]
        if ranks.is_first:
            say_skipped(records)
        held_out = Records(dev) if dev else None
        trained = loop.finetune(checkpoint, records, options, ranks, run, dev=held_out)
        if ranks.is_first:
            finish(trained, out, run)


def begin(out: Path, restart: bool, ranks: "Ranks") -> Path:
    """The folder of a run beside its checkpoint; a checkpoint that is there already is not trained over unasked."""
    run = out.with_name(out.name + ".run")
    if out.exists() and not restart:
        raise TrainingError(f"{out} is there already; name another folder, or give --restart to replace it in the end")
    if ranks.is_first:
        run.mkdir(parents=True, exist_ok=True)
        if restart:
            (run / "state.pt").unlink(missing_ok=True)
    ranks.wait()
    return run


def finish(trained: "Checkpoint", out: Path, run: Path) -> None:
    """Write the checkpoint; only then the state is not needed any more."""
    trained.save(out)
    (run / "state.pt").unlink(missing_ok=True)
    typer.echo(f"{out}: written; log and plots are in {run}")
