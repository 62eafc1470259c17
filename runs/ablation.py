"""The ablation table: one factor at a time, at a fixed small budget, judged on dev files.

    python -m runs.ablation OUT [--only GROUP ...] [--steps 100] [--pretrain-steps 60]

OUT is that of `runs/cpu.sh`, as far as its first stage (`1-heads`, `mix.jsonl`, the taught records). Every row is made
by the commands of the project: pre-training with some of the losses, heads in closed form, fine-tuning on the fused
score; then nDCG@10 on OUT/dev/*.jsonl, each file weighing the same. A row differs from the row `both decoders` in one
factor, and is compared with that of the same seeds. Intervals are paired bootstraps over the queries of all files;
`low` and `high` of `minus_base` that span 0 mean that the difference is within noise of queries; they know nothing of
the noise of seeds. Runs that are there already are not made again. OUT/mined holds the same records with negatives that
`dupmae index mine` found; without it that row is left out. OUT/ablation.json is what `runs.figures` draws.
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
from runs.results import AblationRow

BASE = "both decoders"
LENGTHS, KEPT = (64, 128), (32, 192)
"""Tokens that are read and terms that are kept in judging, of a query and of a passage."""
SAMPLE = 2000
"""Texts that heads are fitted on."""
PRETRAIN = "--batch-size 32 --max-tokens 96 --bow-weight 0.02 --head-learning-rate 5e-4 --learning-rate 3e-5"
FINETUNE = (
    "--batch-size 16 --negatives 1 --query-tokens 64 --document-tokens 96 --k-query 96 --k-document 256 "
    "--learning-rate 8e-5 --head-learning-rate 6e-4 --term-learning-rate 2e-3 --contrast-weight 0.4 --part-weight 0.3 "
    "--teach-weight 1 --align-weight 4 --words-weight 8 --query-sparsity 0.01 --document-sparsity 0.004"
)
QUICK = "--precision bf16 --dropout 0"


@dataclass(frozen=True)
class Row:
    """A model, once a seed: what it is called, and the options in which it differs from the base."""

    group: str
    name: str
    pretrain: str | None = ""
    finetune: str = ""
    seeds: tuple[int, ...] = (0,)
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
    Row("negatives", "mined by the released model", files="mined"),
    Row("bags of words", "not drawn to BM25's", finetune="--words-weight 0"),
    Row("bags of words", "drawn to BM25's"),
    Row("teachers", "labels only", finetune="--teach-weight 0 --align-weight 0 --contrast-weight 1"),
    Row("teachers", "labels and two systems"),
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
    steps: Annotated[int, typer.Option(help="Of fine-tuning.")] = 100,
    pretrain_steps: Annotated[int, typer.Option(help="Of pre-training.")] = 60,
) -> None:
    """Make the rows, and write OUT/ablation.json."""
    folder = out / "ablation"
    folder.mkdir(exist_ok=True)
    made: dict[Row, list[NDArray[np.float64]]] = {}
    for row in ROWS:
        if not list((out / row.files).glob("*.jsonl")):
            typer.echo(f"{row.group}: {row.name}: left out, {out / row.files} holds no records")
        elif not only or row.group in only or row.name == BASE:
            made[row] = []
            for seed in row.seeds:
                made[row].append(judged(trained(row, seed, out, (pretrain_steps, steps)), out))
                typer.echo(f"{row.group}: {row.name}, seed {seed}: {_shown(made[row][-1])}")
    base = next(runs for row, runs in made.items() if row.name == BASE)
    table = [compared(row.group, row.name, runs, base[: len(runs)]) for row, runs in made.items()]
    for column, name in ((1, "[CLS] only"), (2, "words only"), (0, "fused")):
        table.append(compared("score", name, [values[:, [column] * 3] for values in base], base))
    (out / "ablation.json").write_text(json.dumps([row.model_dump() for row in table], indent=1) + "\n")


def trained(row: Row, seed: int, out: Path, steps: tuple[int, int]) -> Path:
    """The row's checkpoint; stages that rows share are made once."""
    folder, (pretrain_steps, finetune_steps) = out / "ablation", steps
    start = out / "1-heads"
    if row.pretrain is not None:
        start = folder / _name("dupmae", row.pretrain, seed)
        options = f"{PRETRAIN} {QUICK} --steps {pretrain_steps} --seed {seed} {row.pretrain}"
        _run("pretrain", out / "1-heads", start, out / "text.jsonl", *options.split())
    warm = folder / f"{start.name}-warm"
    _run(
        "warm-start",
        start,
        warm,
        out / "mix.jsonl",
        *f"--teacher {out / 'minilm'} --words rarity --sample {SAMPLE}".split(),
    )
    fused = folder / _name(f"{warm.name}-fused-{row.files}", row.finetune, seed)
    files = sorted((out / row.files).glob("*.jsonl"))
    options = f"{FINETUNE} {QUICK} --steps {finetune_steps} --seed {seed} {row.finetune}"
    _run("finetune", warm, fused, *files, *options.split())
    return fused


def judged(checkpoint: Path, out: Path) -> NDArray[np.float64]:
    """nDCG@10 of every dev query (queries, 3), fused, [CLS] and words, scaled so that files weigh the same."""
    kept = checkpoint.parent / f"{checkpoint.name}.npy"
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


def compared(
    group: str, name: str, runs: Sequence[NDArray[np.float64]], base: Sequence[NDArray[np.float64]]
) -> AblationRow:
    """A row of the table: means over its seeds, beside the base of the same seeds."""
    values = np.mean(runs, axis=0)
    fused, minus = estimate(np.stack([values[:, 0], values[:, 0] - np.mean(base, axis=0)[:, 0]], axis=1))
    sides = {} if group == "score" else {"cls": float(values[:, 1].mean()), "ot": float(values[:, 2].mean())}
    seeds = [float(run[:, 0].mean()) for run in runs]
    return AblationRow(group=group, row=name, ndcg={"fused": fused, **sides}, minus_base=minus, seeds=seeds)


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
