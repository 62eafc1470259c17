"""The ablation table: one factor at a time, at a fixed small budget, judged on dev files.

    python -m runs.ablation OUT [--only GROUP ...] [--steps 120] [--pretrain-steps 100]

OUT is that of `runs/cpu.sh`, as far as its first stage (`1-heads`, `mix.jsonl`, the taught records). Every row is made
by the commands of the project: pre-training with some of the losses, heads in closed form, fine-tuning on the fused
score; then nDCG@10 on OUT/dev/*.jsonl, each file weighing the same. A row differs from the row `both decoders` in one
factor. Intervals are paired bootstraps over the queries of all files; `low` and `high` of `minus` that span 0 mean that
the difference is within noise. Rows that are there already are not made again. OUT/mined holds the same records with
negatives that `dupmae index mine` found; without it that row is left out.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from typer.testing import CliRunner

from model.checkpoint import load
from model.cli import app as dupmae_model
from model.estimate import estimate
from model.judge import Collection, encode, ndcgs
from model.records import Records

BASE = "both decoders"
LENGTHS, KEPT = (32, 128), (64, 256)
PRETRAIN = "--batch-size 32 --max-tokens 96 --bow-weight 0.02 --head-learning-rate 5e-4 --learning-rate 3e-5"
FINETUNE = (
    "--batch-size 16 --negatives 1 --query-tokens 32 --document-tokens 96 --k-query 64 --k-document 256 "
    "--learning-rate 4e-5 --head-learning-rate 1e-4 --term-learning-rate 3e-4 --contrast-weight 0.4 --teach-weight 1 "
    "--align-weight 4 --query-sparsity 0.01 --document-sparsity 0.004"
)
QUICK = "--precision bf16 --dropout 0"


@dataclass(frozen=True)
class Row:
    """One model: what it is called, and the options in which it differs from the base."""

    group: str
    name: str
    pretrain: str | None = ""
    finetune: str = ""
    seeds: Sequence[int] = (0,)
    files: str = "train"


ROWS = [
    Row("pre-training", "none", pretrain=None, seeds=(0, 1)),
    Row("pre-training", "[CLS] decoder only", pretrain="--bow-weight 0", seeds=(0, 1)),
    Row("pre-training", "bag of words only", pretrain="--cls-weight 0", seeds=(0, 1)),
    Row("pre-training", BASE, seeds=(0, 1)),
    Row("activation", "relu"),
    Row("activation", "raw", finetune="--activation raw"),
    Row("activation", "log1p(relu)", finetune="--activation log1p"),
    Row("negatives", "of the batch only", finetune="--negatives 0"),
    Row("negatives", "BM25"),
    Row("negatives", "mined with the first model", files="mined"),
    Row("teachers", "labels only", finetune="--teach-weight 0 --align-weight 0 --contrast-weight 1", seeds=(0, 1)),
    Row("teachers", "labels and two systems", seeds=(0, 1)),
    Row("teachers", "two systems only", finetune="--contrast-weight 0"),
    *(
        Row("dense dimensions", str(width), finetune=f"--align-weight 0 --dense-dim {width}")
        for width in (64, 128, 256)
    ),
    Row("dense dimensions", "384", finetune="--align-weight 0"),
]


def main(
    out: Annotated[Path, typer.Argument(help="Folder of runs/cpu.sh.")],
    only: Annotated[list[str] | None, typer.Option(help="Groups to make.")] = None,
    steps: Annotated[int, typer.Option(help="Of fine-tuning.")] = 120,
    pretrain_steps: Annotated[int, typer.Option(help="Of pre-training.")] = 100,
) -> None:
    """Make the rows, and write OUT/ablation.json."""
    folder = out / "ablation"
    folder.mkdir(exist_ok=True)
    made: dict[tuple[str, str], NDArray[np.float64]] = {}
    for row in ROWS:
        if not list((out / row.files).glob("*.jsonl")):
            typer.echo(f"{row.group}: {row.name}: left out, {out / row.files} holds no records")
        elif not only or row.group in only or row.name == BASE:
            runs = [judged(trained(row, seed, out, (pretrain_steps, steps)), out) for seed in row.seeds]
            made[row.group, row.name] = np.mean(runs, axis=0)
            for seed, values in zip(row.seeds, runs, strict=True):
                typer.echo(f"{row.group}: {row.name}, seed {seed}: {_shown(values)}")
    base = next(values for (_, name), values in made.items() if name == BASE)
    table = [entry(group, name, values, base) for (group, name), values in made.items()]
    table += [side("representation", name, base, column) for column, name in ((1, "[CLS] only"), (2, "words only"))]
    (out / "ablation.json").write_text(json.dumps(table, indent=1) + "\n")


def trained(row: Row, seed: int, out: Path, steps: tuple[int, int]) -> Path:
    """The row's checkpoint; stages that rows share are made once."""
    folder, (pretrain_steps, finetune_steps) = out / "ablation", steps
    start = out / "1-heads"
    if row.pretrain is not None:
        start = folder / _name("dupmae", row.pretrain, seed)
        options = f"{PRETRAIN} {QUICK} --steps {pretrain_steps} --seed {seed} {row.pretrain}"
        _run("pretrain", out / "1-heads", start, out / "text.jsonl", *options.split())
    warm = folder / f"{start.name}-warm"
    _run("warm-start", start, warm, out / "mix.jsonl", "--teacher", out / "minilm", "--words", "rarity")
    fused = folder / _name(f"{warm.name}-fused-{row.files}", row.finetune, seed)
    files = sorted((out / row.files).glob("*.jsonl"))
    options = f"{FINETUNE} {QUICK} --steps {finetune_steps} --seed {seed} {row.finetune}"
    _run("finetune", warm, fused, *files, *options.split())
    return fused


def judged(checkpoint: Path, out: Path) -> NDArray[np.float64]:
    """nDCG@10 of every dev query (queries, 3), fused, [CLS] and words, scaled so that files weigh the same."""
    kept = checkpoint.with_suffix(".npy")
    if not kept.exists():
        loaded = load(checkpoint)
        encoder, columns = loaded.model.encoder.eval(), []
        with torch.autocast("cpu", torch.bfloat16):
            for file in sorted((out / "dev").glob("*.jsonl")):
                dev = Collection.of(Records(file))
                queries = encode(encoder, loaded.tokenizer, dev.queries, (LENGTHS[0], KEPT[0]))
                passages = encode(encoder, loaded.tokenizer, dev.passages, (LENGTHS[1], KEPT[1]))
                columns.append(np.array(list(ndcgs(queries, passages, dev.right).values())).T)
        whole, files = sum(map(len, columns)), len(columns)
        np.save(kept, np.concatenate([values * whole / (files * len(values)) for values in columns]))
    found: NDArray[np.float64] = np.load(kept)
    return found


def entry(group: str, name: str, values: NDArray[np.float64], base: NDArray[np.float64]) -> dict[str, object]:
    """A row of the table."""
    fused, minus = estimate(np.stack([values[:, 0], values[:, 0] - base[:, 0]], axis=1))
    ndcg = {"fused": fused.model_dump(), "cls": float(values[:, 1].mean()), "ot": float(values[:, 2].mean())}
    return {"group": group, "row": name, "ndcg": ndcg, "minus": minus.model_dump()}


def side(group: str, name: str, base: NDArray[np.float64], column: int) -> dict[str, object]:
    """One side of the base alone, as a row."""
    return entry(group, name, base[:, [column, 1, 2]], base)


def _run(*words: str | Path) -> None:
    """A command of `dupmae model` whose second path does not exist yet."""
    if not Path(words[2]).exists():
        done = CliRunner().invoke(dupmae_model, list(map(str, words)))
        if done.exit_code:
            raise SystemExit(f"{' '.join(map(str, words))}: {done.exception or done.output}")


def _name(stem: str, options: str, seed: int) -> str:
    said = "".join(f"-{word.lstrip('-')}" for word in options.split())
    return f"{stem}{said}-{seed}"


def _shown(values: NDArray[np.float64]) -> str:
    return ", ".join(
        f"{name} {value:.3f}" for name, value in zip(("fused", "CLS", "OT"), values.mean(axis=0), strict=True)
    )


if __name__ == "__main__":
    typer.run(main)
