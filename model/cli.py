"""`dupmae model ...`: train a checkpoint, make an artifact of it, look at one.

Commands raise what the packages raise; the root command turns it into one line and an exit code. Torch is imported by
the command that needs it, and only there.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from model.artifact import Precision
from model.flags import flags
from model.options import AdaptOptions, FinetuneOptions, PretrainOptions, TrainingError
from model.score import ScoreOptions

if TYPE_CHECKING:
    from model.adapt import Adapted
    from model.artifact import Manifest
    from model.checkpoint import Checkpoint
    from model.distributed import Ranks
    from model.export import Facts
    from model.records import Records

EXAMPLES = """Worked examples

From raw text to an index:
  dupmae model pretrain bert/ ck/dupmae wiki.jsonl.xz --steps 20000 --bow-weight 0.02
  dupmae model warm-start ck/dupmae ck/warm wiki.jsonl.xz
  dupmae index mine beir/scifact bm25.jsonl --split train --method bm25 --documents beir/scifact
  dupmae model finetune ck/warm ck/fused bm25.jsonl --steps 2000
  dupmae model export ck/fused my-model
  dupmae index build notes.jsonl --artifact my-model

On eight GPUs:
  torchrun --nproc-per-node 8 --no-python dupmae model pretrain bert/ ck/dupmae wiki.jsonl.xz --precision bf16

With a teacher:
  dupmae model score cross-encoder/ mined.jsonl scored.jsonl
  dupmae model finetune ck/fused ck/distilled scored.jsonl --distill-weight 1 --contrast-weight 0.2

For your own text, from the bundled model on:
  dupmae model adapt my-model notes.jsonl
"""

app = typer.Typer(
    help="Train models, export them and look at them.",
    epilog="\n\n".join(filter(None, EXAMPLES.splitlines())),  # paragraphs, or lines are run together
    no_args_is_help=True,
)

Start = Annotated[Path, typer.Argument(help="Checkpoint, or any BERT folder of `transformers`.")]
Out = Annotated[Path, typer.Argument(help="Folder for the new checkpoint.")]
Texts = Annotated[list[Path], typer.Argument(help="JSON lines with `text`, or plain text; .gz, .xz, .zst too.")]
Restart = Annotated[bool, typer.Option("--restart", help="Begin anew: replace OUT, forget an unfinished run.")]
DenseDim = Annotated[int | None, typer.Option(min=1, help="Dimensions of [CLS] vectors; as it is, or 384.")]
ActivationRule = Annotated[
    Literal["raw", "relu", "log1p"] | None, typer.Option(help="Of the word weights; as it is, or relu.")
]


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


@app.command(
    epilog="Example: dupmae model pretrain bert/ checkpoints/dupmae wiki.jsonl.xz --steps 1000 --bow-weight 0.02"
)
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


@app.command(
    "warm-start",
    epilog="Example: dupmae model warm-start checkpoints/dupmae checkpoints/warm wiki.jsonl.xz --teacher minilm/",
)
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
    from itertools import islice

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


@app.command(
    epilog="Example: dupmae model finetune checkpoints/warm checkpoints/fused train.jsonl --steps 500 --dev dev.jsonl"
)
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
            _say_skipped(records)
        held_out = Records(dev) if dev else None
        trained = loop.finetune(checkpoint, records, options, ranks, run, dev=held_out)
        if ranks.is_first:
            finish(trained, out, run)


@app.command(epilog="Example: dupmae model adapt my-model notes.jsonl.gz --train questions.jsonl")
@flags(AdaptOptions)
def adapt(
    out: Annotated[Path, typer.Argument(help="New artifact folder; must not exist.")],
    texts: Texts,
    options: AdaptOptions,
    start: Annotated[
        Path | None, typer.Option(help="Checkpoint, artifact or BERT folder; the bundled model when not given.")
    ] = None,
    train: Annotated[
        list[Path] | None, typer.Option(help="Records of your own to train on too, see finetune; may be repeated.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew: forget an unfinished run.")] = False,
) -> None:
    """Make a model for your own text, of which nobody has labelled anything, and say whether it is better there.

    Pre-trains on, fits the heads again, fine-tunes on titles and sentences, exports. A part of the text is held out and
    judged on before and after. OUT.run keeps every stage; the same command goes on from there if it was interrupted.
    """
    with train_extra():
        from model.adapt import Sources
        from model.adapt import adapt as make
    from model.artifact import BUNDLED

    sources = Sources(start or BUNDLED, tuple(texts), tuple(train or ()))
    done = make(out, sources, options, restart=restart, say=lambda text: typer.echo(text, err=True))
    typer.echo("\n".join(_before_and_after(done)))
    typer.echo(f"\nNext: dupmae index build {' '.join(map(str, texts))} --artifact {out}")
    typer.echo(f"      dupmae evaluate BEIR_DIR --artifact {out}   (on queries that people asked, if you have some)")


@app.command(epilog="Example: dupmae model export checkpoints/fused my-model --precision int8 --judge dev.jsonl")
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
    from itertools import islice

    judged = [Records(file) for file in judge or ()]
    _say_skipped(judged)
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


@app.command(epilog="Example: dupmae model score all-mpnet-base-v2/ train.jsonl scored.jsonl --batch 32")
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


@app.command(epilog="Example: dupmae model teach all-MiniLM-L6-v2/ train.jsonl --max-tokens 256")
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


@app.command(epilog="Example: dupmae model balance checkpoints/fused checkpoints/balanced dev-1.jsonl dev-2.jsonl")
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


@contextmanager
def train_extra() -> Iterator[None]:
    """Name the extra when one of its packages is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra(f'{error.name} is not installed: pip install "dupmae-search[train]"') from error


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


def _say_skipped(files: "Sequence[Records]") -> None:
    for file in files:
        if file.skipped:
            left_out = ", ".join(f"{count} {what}" for what, count in file.skipped.items())
            typer.echo(f"{file.path}: left out {left_out}", err=True)


def _before_and_after(done: "Adapted") -> list[str]:
    counts, before, after = done.counts, done.before, done.after
    better = after["fused"] > before["fused"]
    return [
        f"nDCG@10 of {counts.queries:,} held-out queries over {counts.passages:,} passages",
        f"{'':8}{'before':>8}{'after':>8}",
        *(f"{part:8}{before[part]:8.3f}{after[part]:8.3f}" for part in before),
        *([] if better else ["Fused search is NOT better than before: keep the old model, or try other options."]),
    ]


def _lines(manifest: "Manifest") -> list[str]:
    return [
        f"{manifest.name} ({manifest.precision}, {manifest.licence}, from {manifest.base_model})",
        f"  fingerprint  {manifest.fingerprint}",
        f"  vectors      [CLS] {manifest.dense_dim} dimensions, {manifest.vocabulary_size:,} terms "
        f"({manifest.k_query} kept per query, {manifest.k_document} per document)",
        f"  lengths      {manifest.max_query_tokens} tokens per query, {manifest.max_document_tokens} per document",
        *(
            f"  {collection:12} " + ", ".join(f"{metric} {value:g}" for metric, value in figures.items())
            for collection, figures in manifest.evaluation.items()
        ),
    ]


def _stub(facts: "Facts") -> str:
    return (
        f"# {facts.name}\n\nStarted from {facts.base_model}; licence: {facts.licence}.\n\n"
        "Nobody has described this model's data and limits yet.\n"
    )
