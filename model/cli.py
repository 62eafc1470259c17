"""`dupmae model ...`: the commands in the order of their help, with an example for each.

Commands raise what the packages raise; the root command turns it into one line and an exit code.
"""

import typer

from model.commands.adapt import adapt
from model.commands.balance import balance
from model.commands.export import export
from model.commands.info import info
from model.commands.narrow import narrow
from model.commands.options import MissingExtra
from model.commands.teachers import score, teach
from model.commands.train import finetune, pretrain, warm_start

__all__ = ["EXAMPLES", "MissingExtra", "app"]

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
    add_completion=False,
)

app.command(epilog="Example: dupmae model info model/pretrained --json")(info)
app.command(
    epilog="Example: dupmae model pretrain bert/ checkpoints/dupmae wiki.jsonl.xz --steps 1000 --bow-weight 0.02"
)(pretrain)
app.command(
    "warm-start",
    epilog="Example: dupmae model warm-start checkpoints/dupmae checkpoints/warm wiki.jsonl.xz --teacher minilm/",
)(warm_start)
app.command(
    epilog="Example: dupmae model finetune checkpoints/warm checkpoints/fused train.jsonl --steps 500 --dev dev.jsonl"
)(finetune)
app.command(epilog="Example: dupmae model adapt my-model notes.jsonl.gz --train questions.jsonl")(adapt)
app.command(epilog="Example: dupmae model export checkpoints/fused my-model --precision int8 --judge dev.jsonl")(export)
app.command(epilog="Example: dupmae model score all-mpnet-base-v2/ train.jsonl scored.jsonl --batch 32")(score)
app.command(epilog="Example: dupmae model teach all-MiniLM-L6-v2/ train.jsonl --max-tokens 256")(teach)
app.command(epilog="Example: dupmae model balance checkpoints/fused checkpoints/balanced dev-1.jsonl dev-2.jsonl")(
    balance
)
app.command(epilog="Example: dupmae model narrow checkpoints/balanced checkpoints/narrow texts.jsonl.xz")(narrow)
