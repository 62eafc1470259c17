"""The balance of words and meaning: the factor that is best on held-out records, and what it does to scores."""

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

import model.cli
from model.artifact import Artifact
from model.balance import FACTORS, RARITY_WEIGHTS, balanced, best, measure, saturated
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


def test_by_rarity_too_what_is_measured_is_what_the_checkpoint_has(start: Checkpoint, tmp_path: Path) -> None:
    start = saturated(start, 2.0)
    with Records(write_records(tmp_path / "dev.jsonl")) as dev:
        found = measure(start, [dev], OPTIONS, rarity=True)
        assert list(found) == list(RARITY_WEIGHTS)
        for weight in (0.1, 0.7):
            after = balanced(start, weight, rarity=True)
            assert after.facts.rarity_weight == weight
            figures = judge(after.model.encoder, after.tokenizer, dev, OPTIONS, after.facts.rarity_weight)
            assert found[weight] == [pytest.approx(figures["fused"])]
        assert len({tuple(values) for values in found.values()}) > 1


def test_saturated_weights_are_the_logarithm_of_what_they_were(start: Checkpoint) -> None:
    inputs = start.tokenizer(SENTENCES, padding=True, return_tensors="pt")
    encoded = inputs["input_ids"], inputs["attention_mask"], 30
    with torch.no_grad():
        _, before = start.model.encoder(*encoded)
        after = saturated(start, 3.0)
        _, bag = after.model.encoder(*encoded)
    assert after.facts.activation == after.model.encoder.terms.activation == "log1p"
    kept = before.values > 0
    assert torch.equal(bag.indices[kept], before.indices[kept])
    torch.testing.assert_close(bag.values[kept], (1 + 3 * before.values[kept]).log())
    with pytest.raises(TrainingError, match="start from relu"):
        saturated(after, 3.0)


def test_the_command_keeps_what_a_nat_is_worth_and_the_artifact_says_it(start: Checkpoint, tmp_path: Path) -> None:
    start.save(tmp_path / "fused")
    dev = write_records(tmp_path / "dev.jsonl")
    words = [
        "balance",
        str(tmp_path / "fused"),
        str(tmp_path / "out"),
        str(dev),
        "--log1p",
        "2",
        "--rarity",
        "--dense-dim",
        "8",
    ]
    done = CliRunner().invoke(model.cli.app, words)
    assert done.exit_code == 0, done.output
    facts = json.loads((tmp_path / "out" / "dupmae.json").read_text())
    assert (facts["activation"], facts["dense_dim"]) == ("log1p", 8)
    assert facts["rarity_weight"] in RARITY_WEIGHTS
    done = CliRunner().invoke(
        model.cli.app, ["export", str(tmp_path / "out"), str(tmp_path / "artifact"), "--precision", "fp32"]
    )
    assert done.exit_code == 0, done.output
    manifest = Artifact.open(tmp_path / "artifact").manifest
    assert (manifest.activation, manifest.dense_dim) == ("log1p", 8)
    assert manifest.rarity_weight == facts["rarity_weight"]
    assert load(tmp_path / "artifact").facts.rarity_weight == facts["rarity_weight"]


def test_the_quietest_of_those_as_good_is_chosen_and_what_no_factor_passes_is_refused(
    start: Checkpoint, tmp_path: Path
) -> None:
    assert best({factor: [0.5, 0.7] for factor in FACTORS}) == FACTORS[0]
    by_rarity = balanced(start, 0.5, rarity=True)
    with pytest.raises(TrainingError, match="give --rarity"):
        balanced(by_rarity, 0.5)
    after = saturated(start, 2.0)
    with pytest.raises(TrainingError, match="log1p"):
        balanced(after, 0.5)
    with pytest.raises(TrainingError, match="log1p"), Records(write_records(tmp_path / "dev.jsonl")) as dev:
        measure(after, [dev], OPTIONS)
