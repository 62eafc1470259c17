"""A network and texts small enough to learn in seconds, for the tests of both loops."""

import json
import subprocess
import sysconfig
from pathlib import Path

import torch
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

SENTENCES = [
    "the king and the queen of the island had a horse",
    "how do i compress a file in python",
    "the speed of sound in air and water",
    "a company can buy and sell fish in the market",
    "every five seconds the server writes data to the disk",
    "the old town in the north has a river and a mountain",
    "run a function every day at night in time",
    "bread and wine and fish on a table",
]


def save_bert(tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Two layers, d = 32, without dropout: its draws depend on how a batch is divided."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20240229)
        BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_text(path: Path) -> Path:
    path.write_text("\n".join(SENTENCES * 4))
    return path


def write_records(path: Path, *, scored: bool = False) -> Path:
    """A query of every third word of a sentence, which answers it; the sentence before it does not."""
    rows = [
        {"query": " ".join(s.split()[::3]), "pos": [s], "neg": [SENTENCES[i - 1], SENTENCES[i - 2]]}
        | ({"pos_scores": [3.0], "neg_scores": [1.0, -1.0]} if scored else {})
        for i, s in enumerate(SENTENCES)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(*words: str | Path, ranks: int = 1) -> list[str]:
    """`dupmae model ...` in a process of its own, or in several under torchrun."""
    scripts = Path(sysconfig.get_path("scripts"))
    launcher = [scripts / "torchrun", "--standalone", f"--nproc-per-node={ranks}", "--no-python"] if ranks > 1 else []
    return [str(word) for word in (*launcher, scripts / "dupmae", "model", *words)]


def run(*words: str | Path, ranks: int = 1) -> None:
    done = subprocess.run(command(*words, ranks=ranks), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def log(folder: Path, key: str) -> list[float]:
    """What a run logged under a name, step by step."""
    rows = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [row[key] for row in rows if key in row]
