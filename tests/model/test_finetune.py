"""Fine-tuning on a network and records small enough to learn in seconds, and the commands that lead to an artifact."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from transformers import BertModel, PreTrainedTokenizerFast
from typer.testing import CliRunner

import model.cli
from model.artifact import Artifact
from model.checkpoint import Checkpoint, load
from model.distributed import Ranks
from model.finetune import finetune
from model.lexicon import WORD_SCALE
from model.lines import SourceError
from model.options import FinetuneOptions, TrainingError
from model.records import Records
from model.warm_start import (
    LOUDEST,
    SCALE,
    calibrate_terms,
    fit_projection,
    mean_pooled,
    own_cls,
    spread_projection,
    weigh_words,
)
from tests.model.training import SENTENCES, log, save_bert, write_records, write_text

ALONE = Ranks(0, 1, torch.device("cpu"))
QUICK = {
    "batch_size": 8,
    "document_tokens": 64,
    "k_query": 32,
    "k_document": 64,
    "learning_rate": 1e-3,
    "head_learning_rate": 1e-3,
}
TEXTS = [" ".join(words) for n in range(2, 9) for s in SENTENCES for words in (s.split()[:n], s.split()[-n:])]


@pytest.fixture
def start(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Checkpoint:
    torch.manual_seed(0)
    return load(save_bert(tiny_tokenizer, tmp_path / "bert"))


def trained(start: Checkpoint, records: Path, *, dev: Path | None = None, **options: object) -> Checkpoint:
    chosen = FinetuneOptions.model_validate(QUICK | options)
    held_out = Records(dev) if dev else None
    return finetune(start, [Records(records)], chosen, ALONE, records.parent / "run", dev=held_out)


def test_the_fused_loss_falls_and_the_decoder_is_left_alone(start: Checkpoint, tmp_path: Path) -> None:
    calibrate_terms(start, SENTENCES, active=20)
    decoder = copy.deepcopy(start.model.decoder.state_dict())
    after = trained(start, write_records(tmp_path / "train.jsonl"), steps=40)
    losses = log(tmp_path / "run", "fused")
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert all(torch.equal(value, decoder[name]) for name, value in start.model.decoder.state_dict().items())
    assert after.facts.history[-1].startswith("finetune {")


def test_held_out_records_are_ranked_now_and_then_and_at_the_end(start: Checkpoint, tmp_path: Path) -> None:
    path = write_records(tmp_path / "train.jsonl")
    calibrate_terms(start, SENTENCES, active=20)
    trained(start, path, dev=path, steps=25, dev_every=10)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    measured = {row["step"]: row["dev"] for row in rows if "dev" in row}
    assert list(measured) == [10, 20, 25]
    assert measured[25].keys() == {"fused", "cls", "ot"}
    assert measured[25]["fused"] > 0.8


def test_a_teacher_alone_is_learned_from(start: Checkpoint, tmp_path: Path) -> None:
    calibrate_terms(start, SENTENCES, active=20)
    path = write_records(tmp_path / "train.jsonl", scored=True)
    trained(start, path, steps=40, contrast_weight=0, distill_weight=1, negatives=2, document_sparsity=0)
    losses = log(tmp_path / "run", "distill")
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_more_sparsity_keeps_fewer_terms(start: Checkpoint, tmp_path: Path) -> None:
    path = write_records(tmp_path / "train.jsonl")
    for name, factor in (("weak", 0.0), ("strong", 3.0)):
        copied = start._replace(model=copy.deepcopy(start.model))
        calibrate_terms(copied, SENTENCES, active=40)
        sparsity = {"query_sparsity": factor, "document_sparsity": factor, "sparsity_warmup": 0}
        chosen = FinetuneOptions.model_validate(QUICK | sparsity | {"steps": 30})
        finetune(copied, [Records(path)], chosen, ALONE, tmp_path / name)
    assert log(tmp_path / "strong", "document_terms")[-1] < 0.7 * log(tmp_path / "weak", "document_terms")[-1]


def test_what_cannot_be_trained_on_is_refused_before_the_first_step(start: Checkpoint, tmp_path: Path) -> None:
    path = write_records(tmp_path / "train.jsonl")
    with pytest.raises(SourceError, match=r"train\.jsonl: 8 records, fewer than batch_size=9"):
        trained(start, path, batch_size=9)
    with pytest.raises(SourceError, match="has no scores; `dupmae model score` writes them"):
        trained(start, path, distill_weight=1)
    with pytest.raises(TrainingError, match="k_document=9000, but the vocabulary has"):
        trained(start, path, k_document=9000)
    with pytest.raises(TrainingError, match="document_tokens=129, but the network has 128 positions"):
        trained(start, path, document_tokens=129)


def test_long_repeated_and_nearly_empty_texts_are_trained_on(start: Checkpoint, tmp_path: Path) -> None:
    rows = [
        {"query": "king " * 300, "pos": ["the island " * 400], "neg": ["fish", "fish"]},
        {"query": "fish", "pos": ["fish", "the market"], "neg": ["\u2603", "the island " * 400]},
        {"query": "fish", "pos": ["fish"], "neg": []},
        {"query": "\u2603", "pos": ["."], "neg": [" "]},
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    trained(start, path, steps=3, batch_size=4, negatives=2)
    assert len(log(tmp_path / "run", "total")) == 3


def test_a_warm_start_gives_both_parts_the_scale_of_logits(start: Checkpoint) -> None:
    assert fit_projection(start, mean_pooled(copy.deepcopy(start.model.encoder)), TEXTS) > 0.9
    calibrate_terms(start, TEXTS, active=20)
    encoder = start.model.encoder
    inputs = start.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        cls, bag = encoder(inputs["input_ids"], inputs["attention_mask"], 100)
    assert cls.square().sum(1).mean().item() == pytest.approx(SCALE, rel=0.3)
    assert bag.values.square().sum(1).mean().item() == pytest.approx(SCALE, rel=0.05)
    assert 5 < (bag.values > 0).sum(1).float().mean() < 60


def test_words_by_rarity_weigh_most_in_texts_that_hold_them_and_common_ones_nothing(
    tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    body = BertModel.from_pretrained(save_bert(tiny_tokenizer, tmp_path / "bert"), add_pooling_layer=False)
    for parameter in body.encoder.parameters():
        parameter.data *= 0.1 if parameter.ndim > 1 else 1  # states stay near embeddings, which the new head names
    body.embeddings.word_embeddings.weight.data.normal_()
    body.save_pretrained(tmp_path / "bert")
    start = load(tmp_path / "bert")
    texts = [f"the {text}" for text in TEXTS] * 3  # often enough for means of their own
    assert weigh_words(start, texts) > 40
    inputs = start.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        _, bag = start.model.encoder(inputs["input_ids"], inputs["attention_mask"], start.model.encoder.vocabulary_size)
    weights = bag.dense(start.model.encoder.vocabulary_size)  # (N, V)
    known = start.tokenizer.get_vocab()
    assert weights[:, known["the"]].max() < 0.01
    for word in ("king", "sound", "python"):
        holds = torch.tensor([word in text.split() for text in texts])
        found, lacking = weights[holds, known[word]].mean().item(), weights[~holds, known[word]].mean().item()
        rarity = math.log1p((len(texts) - holds.sum() + 0.5) / (holds.sum() + 0.5))
        assert found == pytest.approx((WORD_SCALE * (rarity - 1)) ** 0.5, rel=0.35)
        assert lacking < found / 4


def test_a_projection_fitted_to_its_own_vectors_gives_them_again(start: Checkpoint) -> None:
    inputs = start.tokenizer(SENTENCES, padding=True, return_tensors="pt").data
    with torch.no_grad():
        before = own_cls(start.model.encoder)(inputs["input_ids"], inputs["attention_mask"])
        assert fit_projection(start, own_cls(copy.deepcopy(start.model.encoder)), TEXTS, ridge=1e-9) > 0.999
        after = own_cls(start.model.encoder)(inputs["input_ids"], inputs["attention_mask"])
    torch.testing.assert_close(after, before, atol=1e-2, rtol=1e-2)


def test_without_a_teacher_the_projection_spreads_texts_apart(start: Checkpoint) -> None:
    spread_projection(start, TEXTS)
    inputs = start.tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        cls = start.model.encoder(inputs["input_ids"], inputs["attention_mask"], 8)[0]
    own = cls.square().sum(1)
    others = (cls @ cls.t())[~torch.eye(len(cls), dtype=torch.bool)]
    assert own.mean() < 1.5 * SCALE
    assert others.std() < 1.5 * LOUDEST
    assert others.mean().abs() < 0.3 * own.mean()


def test_the_commands_lead_from_a_bert_folder_to_an_artifact(
    tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_bert(tiny_tokenizer, tmp_path / "bert")
    write_text(tmp_path / "text.txt")
    write_records(tmp_path / "train.jsonl")
    monkeypatch.chdir(tmp_path)
    for line in (
        "pretrain bert one text.txt --steps 1 --batch-size 4 --dense-dim 16",
        "warm-start one two text.txt",
        "finetune two three train.jsonl --steps 1 --batch-size 4 --document-tokens 64 --k-query 32 --k-document 64",
        "export three artifact --precision fp32",
    ):
        result = CliRunner().invoke(model.cli.app, line.split())
        assert result.exit_code == 0, (line, result.output, result.exception)
    assert len(load(tmp_path / "three").facts.history) == 4
    manifest = Artifact.open(tmp_path / "artifact").manifest
    assert (manifest.precision, manifest.dense_dim) == ("fp32", 16)
    assert (manifest.k_query, manifest.k_document) == (32, 64), "what it was trained with"


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("--stepz=1", "--stepz"),
        ("--steps=0", "--steps: Input should be greater"),
        ("--seed=x", "--seed"),
    ],
)
def test_an_option_that_is_unknown_or_impossible_is_wrong_usage(option: str, complaint: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(model.cli.app, ["pretrain", "in", str(tmp_path / "out"), "text", option])
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.replace("│", " ").split())
