"""`dupmae model ...`: train a checkpoint, make an artifact of it, look at one.

Commands raise what the packages raise; the root command turns it into one line and an exit code. Torch is imported by
the command that needs it, and only there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from model.artifact import Manifest
    from model.export import Facts

M = TypeVar("M", bound="BaseModel")

app = typer.Typer(help="Train models, export them and look at them.", no_args_is_help=True)

Start = Annotated[Path, typer.Argument(help="Checkpoint, or any BERT folder of `transformers`.")]
Out = Annotated[Path, typer.Argument(help="Folder for the new checkpoint; what stands there is replaced.")]
Texts = Annotated[list[Path], typer.Argument(help="JSON lines with `text`, or plain text; .gz, .xz, .zst too.")]
Options = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="NAME=VALUE of an option; see docs/training.md for all.")
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


@app.command(epilog="Example: dupmae model pretrain bert/ checkpoints/dupmae wiki.jsonl.xz -s steps=1000")
def pretrain(start: Start, out: Out, texts: Texts, set_: Options = None) -> None:
    """Train on raw text: masked words, the [CLS] decoder, the bag of words. Losses go to OUT.log.jsonl."""
    with _train_extra():
        from model import pretrain as loop
        from model.checkpoint import load
    options = _options(loop.PretrainOptions, set_ or [])
    loop.pretrain(load(start), texts, options, _log(out)).save(out)


@app.command(
    "warm-start", epilog="Example: dupmae model warm-start checkpoints/dupmae minilm/ checkpoints/warm a.jsonl"
)
def warm_start(
    start: Start,
    teacher: Annotated[Path, typer.Argument(help="BERT folder that was trained as a mean-pooling sentence encoder.")],
    out: Out,
    texts: Texts,
    sample: Annotated[int, typer.Option(min=100, help="Texts to fit on, from the beginning of the files.")] = 4000,
) -> None:
    """Fit the [CLS] projection and the term weights in closed form, so that fine-tuning starts from a useful model."""
    with _train_extra():
        from model.checkpoint import load
        from model.corpus import read_texts
        from model.warm_start import calibrate_terms, fit_projection
    from itertools import islice

    checkpoint, seen = load(start), list(islice(read_texts(texts), sample))
    checkpoint.model.eval()
    try:
        cosine = fit_projection(checkpoint, load(teacher), seen)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="TEACHER") from error
    calibrate_terms(checkpoint, seen[: sample // 4])
    facts = checkpoint.facts.after(f"warm start from {teacher.name}, mean cosine {cosine:.3f}")
    checkpoint._replace(facts=facts).save(out)
    typer.echo(f"{out}: mean cosine of [CLS] vectors to the teacher's {cosine:.3f}")


@app.command(epilog="Example: dupmae model finetune checkpoints/warm checkpoints/fused train.jsonl -s steps=500")
def finetune(
    start: Start,
    out: Out,
    files: Annotated[list[Path], typer.Argument(help='{"query", "pos": [..], "neg": [..]} a line.')],
    set_: Options = None,
) -> None:
    """Train on queries and passages with the fused score. Losses go to OUT.log.jsonl."""
    with _train_extra():
        from model import finetune as loop
        from model.checkpoint import load
    options = _options(loop.FinetuneOptions, set_ or [])
    loop.finetune(load(start), files, options, _log(out)).save(out)


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
    with _train_extra():
        from model.checkpoint import load
        from model.corpus import read_texts
        from model.export import default_facts, docstrings, read_facts
        from model.export import export as write
    from itertools import islice

    loaded = load(checkpoint)
    said = read_facts(facts) if facts else default_facts(out.name, loaded.model.encoder)
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


@contextmanager
def _train_extra() -> Iterator[None]:
    """Name the extra when one of its packages is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra(f'{error.name} is not installed: pip install "dupmae-search[train]"') from error


def _options(kind: "type[M]", pairs: list[str]) -> "M":
    """A loop's options from NAME=VALUE pairs; what it does not know, or cannot be, is wrong usage."""
    from pydantic import ValidationError

    given = dict(pair.partition("=")[::2] for pair in pairs)
    try:
        return kind.model_validate_strings(given)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}={e['input']}: {e['msg']}" for e in error.errors())
        known = ", ".join(kind.model_fields)
        raise typer.BadParameter(f"{problems}. Options: {known}", param_hint="--set") from error


def _log(out: Path) -> Path:
    """The log beside a checkpoint that is not there yet."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.with_name(out.name + ".log.jsonl")


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
