"""The table is made by the commands of the project, once; rows are compared with the base of the same seeds."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from model.cli import app
from model.estimate import Estimate
from runs import ablation
from runs.ablation import BASE, Row, compared
from runs.results import AblationRow
from tests.model.training import save_bert, write_records, write_text


@pytest.fixture
def out(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    """What `runs/cpu.sh` leaves after its first stage, of a network of two layers."""
    teacher = save_bert(tiny_tokenizer, tmp_path / "minilm")
    layers = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in layers]
    (teacher / "modules.json").write_text(json.dumps(modules))
    (teacher / "1_Pooling").mkdir()
    (teacher / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    text, mix = write_text(tmp_path / "text.txt").rename(tmp_path / "text.jsonl"), tmp_path / "mix.jsonl"
    text.write_text("".join(json.dumps({"text": line}) + "\n" for line in text.read_text().splitlines()))
    mix.write_text(text.read_text())
    for part in ("train", "dev"):
        (tmp_path / part).mkdir()
        write_records(tmp_path / part / "one.jsonl")
    run("teach", teacher, tmp_path / "train" / "one.jsonl", "--precision", "fp32")
    run("pretrain", teacher, tmp_path / "1-heads", text, "--steps", "1", "--batch-size", "4", "--max-tokens", "32")
    return tmp_path


def run(*words: str | Path) -> None:
    done = CliRunner().invoke(app, list(map(str, words)))
    assert not done.exit_code, done.output


def test_a_row_is_made_once_and_stands_beside_the_base(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        Row("pre-training", "none", pretrain=None),
        Row("pre-training", BASE),
        Row("activation", "raw", finetune="--activation raw"),
        Row("negatives", "mined", files="mined"),
    ]
    monkeypatch.setattr(ablation, "ROWS", rows)
    for options, size in (("PRETRAIN", 32), ("FINETUNE", 16)):
        monkeypatch.setattr(ablation, options, getattr(ablation, options).replace(f"batch-size {size}", "batch-size 4"))
    ablation.main(out, steps=2, pretrain_steps=1)
    table = TypeAdapter(list[AblationRow]).validate_json((out / "ablation.json").read_bytes())
    assert [(row.group, row.row) for row in table] == [
        ("pre-training", "none"),
        ("pre-training", BASE),
        ("activation", "raw"),
        ("score", "[CLS] only"),
        ("score", "words only"),
        ("score", "fused"),
    ]
    made = sorted((out / "ablation").rglob("model.safetensors"))
    when = [path.stat().st_mtime_ns for path in made]
    ablation.main(out, steps=2, pretrain_steps=1)
    assert [path.stat().st_mtime_ns for path in made] == when
    assert table == TypeAdapter(list[AblationRow]).validate_json((out / "ablation.json").read_bytes())


def test_a_row_of_one_seed_is_compared_with_that_seed_of_the_base() -> None:
    right, wrong = np.ones((200, 3)), np.zeros((200, 3))
    row = compared("teachers", "none", [right], [right])
    assert row.seeds == [1.0]
    assert row.minus_base == Estimate(mean=0, low=0, high=0)
    half = compared("teachers", "none", [right, wrong], [wrong, wrong]).minus_base
    assert half
    assert half.mean == 0.5
