"""The balance of words and meaning: the factor that is best on held-out records, and what it does to scores."""

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

import model.cli
from model.balance import FACTORS, balanced, best, measure
from model.checkpoint import Checkpoint, load
from model.judge import judge
from model.options import FinetuneOptions, TrainingError
from model.records import Records
from model.warm_start import calibrate_terms
from tests.model.training import SENTENCES, save_bert, write_records

OPTIONS = FinetuneOptions(k_query=32, k_document=64, document_tokens=64)


@pytest.fixture
def start(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Checkpoint:
    torch.manual_seed(0)
    checkpoint = load(save_bert(tiny_tokenizer, tmp_path / "bert"))
    calibrate_terms(checkpoint, SENTENCES, active=20)
    return checkpoint


def test_what_is_measured_is_what_the_balanced_checkpoint_has(start: Checkpoint, tmp_path: Path) -> None:
    with Records(write_records(tmp_path / "dev.jsonl")) as dev:
        found = measure(start, [dev], OPTIONS)
        assert list(found) == list(FACTORS)
        for factor in (0.3, 1.0, 1.5):
            after = balanced(copy.deepcopy(start), factor)
            figures = judge(after.model.encoder, after.tokenizer, dev, OPTIONS)
            assert found[factor] == [pytest.approx(figures["fused"])]


def test_every_score_of_words_is_multiplied_and_every_vector_stays(start: Checkpoint) -> None:
    inputs = start.tokenizer(SENTENCES, padding=True, return_tensors="pt")
    encoded = inputs["input_ids"], inputs["attention_mask"], 30
    with torch.no_grad():
        cls, bag = start.model.encoder(*encoded)
        cls_after, bag_after = balanced(start, 0.6).model.encoder(*encoded)
    assert torch.equal(cls, cls_after)
    before, after = (each.dense(start.model.encoder.vocabulary_size) for each in (bag, bag_after))
    torch.testing.assert_close(after @ after.t(), 0.6 * before @ before.t())


def test_the_command_writes_the_best_factor_and_says_all(start: Checkpoint, tmp_path: Path) -> None:
    start.save(tmp_path / "fused")
    dev = write_records(tmp_path / "dev.jsonl")
    words = ["balance", str(tmp_path / "fused"), str(tmp_path / "out"), str(dev), "--k-document", "64"]
    done = CliRunner().invoke(model.cli.app, [*words, "--max-tokens", "64", "--k-query", "32"])
    assert done.exit_code == 0, done.output
    assert all(f"{factor:g} " in done.output for factor in FACTORS)
    facts = json.loads((tmp_path / "out" / "dupmae.json").read_text())
    assert facts["history"][-1].startswith("balance ")
    assert (facts["k_query"], facts["k_document"]) == (32, 64)


def test_equal_figures_leave_things_as_they_are_and_log1p_is_refused(start: Checkpoint, tmp_path: Path) -> None:
    assert best({factor: [0.5, 0.7] for factor in FACTORS}) == 1.0
    start.model.encoder.terms.activation = "log1p"
    with pytest.raises(TrainingError, match="log1p"):
        balanced(start, 0.5)
    with pytest.raises(TrainingError, match="log1p"), Records(write_records(tmp_path / "dev.jsonl")) as dev:
        measure(start, [dev], OPTIONS)
