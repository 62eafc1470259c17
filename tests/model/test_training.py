"""Both loops on a network and a text small enough to learn in seconds."""

import copy
import json
import math
import random
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

import model.cli
from model.artifact import Artifact
from model.checkpoint import Checkpoint, Facts, load
from model.dupmae import DupMAE, FusedEncoder
from model.finetune import Encoded, FinetuneOptions, candidates, finetune, fused_loss
from model.lines import SourceError
from model.pretrain import PretrainOptions, pretrain
from model.records import Example
from model.warm_start import SCALE, calibrate_terms, fit_projection

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


@pytest.fixture
def checkpoint(tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast) -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(DupMAE(copy.deepcopy(tiny_network)), tiny_tokenizer, Facts(dense_dim=16))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(SENTENCES * 4))
    return path


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    rows = [{"query": " ".join(s.split()[::3]), "pos": [s], "neg": [SENTENCES[i - 1]]} for i, s in enumerate(SENTENCES)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(log: Path, key: str) -> list[float]:
    return [json.loads(line)[key] for line in log.read_text().splitlines()]


def test_every_pretraining_loss_falls(checkpoint: Checkpoint, text: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    options = PretrainOptions(steps=60, batch_size=8, learning_rate=3e-3, head_learning_rate=3e-3)
    after = pretrain(checkpoint, [text], options, log)
    for key in ("mlm", "cls", "bow"):
        losses = read(log, key)
        assert sum(losses[-5:]) < 0.8 * sum(losses[:5]), key
    assert len(read(log, "step")) == 60
    assert after.facts.history[-1].startswith("pretrain {")


def test_a_frozen_body_does_not_move_and_its_heads_do(checkpoint: Checkpoint, text: Path, tmp_path: Path) -> None:
    before = copy.deepcopy(checkpoint.model.state_dict())
    options = PretrainOptions(steps=2, batch_size=8, freeze_body=True, cls_weight=0)
    pretrain(checkpoint, [text], options, tmp_path / "log.jsonl")
    moved = {name for name, value in checkpoint.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {
        name for name in before if name.startswith("encoder.mlm.cls.predictions") and "decoder.weight" not in name
    }
    assert all(parameter.requires_grad for parameter in checkpoint.model.parameters())


def test_texts_of_unknown_words_only_do_no_harm(checkpoint: Checkpoint, tmp_path: Path) -> None:
    unknown = "\u2603 " * 20
    path = tmp_path / "text.txt"
    path.write_text("\n".join([*SENTENCES, unknown] * 4))
    log = tmp_path / "log.jsonl"
    pretrain(checkpoint, [path], PretrainOptions(steps=4, batch_size=8), log)
    assert all(math.isfinite(loss) for loss in read(log, "bow"))
    calibrate_terms(checkpoint, [*SENTENCES, unknown], active=20)
    assert all(parameter.isfinite().all() for parameter in checkpoint.model.parameters())


def test_one_seed_gives_one_set_of_weights(checkpoint: Checkpoint, text: Path, tmp_path: Path) -> None:
    twin = Checkpoint(copy.deepcopy(checkpoint.model), checkpoint.tokenizer, checkpoint.facts)
    options = PretrainOptions(steps=3, batch_size=4, seed=5)
    for one in (checkpoint, twin):
        pretrain(one, [text], options, tmp_path / "log.jsonl")
    pairs = zip(checkpoint.model.parameters(), twin.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_fine_tuning_lowers_the_fused_loss_and_leaves_the_decoder_alone(
    checkpoint: Checkpoint, records: Path, tmp_path: Path
) -> None:
    calibrate_terms(checkpoint, SENTENCES, active=20)
    log, decoder = tmp_path / "log.jsonl", copy.deepcopy(checkpoint.model.decoder.state_dict())
    rates = {"learning_rate": 1e-3, "head_learning_rate": 1e-3}
    options = FinetuneOptions(steps=40, batch_size=8, k_query=32, k_document=64, **rates)
    after = finetune(checkpoint, [records], options, log)
    losses = read(log, "fused")
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert all(torch.equal(value, decoder[name]) for name, value in checkpoint.model.decoder.state_dict().items())
    assert after.facts.history[-1].startswith("finetune {")


def test_a_file_smaller_than_a_batch_is_refused(checkpoint: Checkpoint, records: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds 8 examples, fewer than batch_size=9"):
        finetune(checkpoint, [records], FinetuneOptions(batch_size=9), tmp_path / "log.jsonl")


def test_another_positive_of_a_query_is_neither_right_nor_wrong() -> None:
    examples = [Example("q", ("a", "b"), ("c",)), Example("r", ("a",)), Example("s", ("b",))]
    batch = candidates(examples, 1, random.Random(0))
    assert sorted(batch.passages) == ["a", "b", "c"]
    other = 1 - batch.target[0].item()  # positives come first, and they are two
    assert batch.ignored.nonzero().tolist() == [[0, other]]
    nothing = Encoded(torch.zeros(3, 1), torch.zeros(3, 1))  # every score 0: each free column is as likely
    loss, numbers = fused_loss(nothing, nothing, batch, part_weight=0.5)
    assert numbers["fused"] == pytest.approx((math.log(2) + 2 * math.log(3)) / 3)
    assert loss.item() == pytest.approx(2 * numbers["fused"])


def test_an_answer_with_another_positive_does_not_count_as_wrong() -> None:
    batch = candidates([Example("q", ("a", "b")), Example("r", ("a",)), Example("s", ("b",))], 0, random.Random(0))
    columns = torch.eye(2)
    query = columns[[1 - int(batch.target[0]), *batch.target[1:].tolist()]]  # the first answers with the one not drawn
    _, numbers = fused_loss(Encoded(query, torch.zeros(3, 1)), Encoded(columns, torch.zeros(2, 1)), batch, 0.0)
    assert numbers["accuracy"] == 1.0


def test_a_checkpoint_comes_back_as_it_was_saved(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    checkpoint.save(folder)
    checkpoint.save(folder)  # replaces the first
    loaded = load(folder)
    wanted = checkpoint.model.state_dict()
    assert {
        name: torch.equal(value, wanted[name]) for name, value in loaded.model.state_dict().items()
    } == dict.fromkeys(wanted, True)
    assert loaded.facts == checkpoint.facts
    assert loaded.tokenizer("the king")["input_ids"] == checkpoint.tokenizer("the king")["input_ids"]
    assert not (tmp_path / "checkpoint.partial").exists()


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load(tmp_path)


def test_a_warm_start_gives_both_parts_the_scale_of_logits(checkpoint: Checkpoint) -> None:
    teacher = Checkpoint(DupMAE(copy.deepcopy(checkpoint.model.encoder)), checkpoint.tokenizer, Facts(dense_dim=16))
    wide = Checkpoint(DupMAE(_wide(checkpoint.model.encoder)), checkpoint.tokenizer, Facts(dense_dim=32))
    texts = [" ".join(words) for n in range(2, 9) for s in SENTENCES for words in (s.split()[:n], s.split()[-n:])]
    assert fit_projection(wide, teacher, texts) > 0.9
    calibrate_terms(wide, texts, active=20)
    encoder = wide.model.encoder
    inputs = wide.tokenizer(texts, padding=True, return_tensors="pt")
    cls, bag = encoder(inputs["input_ids"], inputs["attention_mask"], 100)
    assert cls.square().sum(1).mean().item() == pytest.approx(SCALE, rel=0.3)
    assert bag.values.square().sum(1).mean().item() == pytest.approx(SCALE, rel=0.05)
    assert 5 < (bag.values > 0).sum(1).float().mean() < 60


def _wide(encoder: FusedEncoder) -> FusedEncoder:
    wide = FusedEncoder(copy.deepcopy(encoder.mlm), dense_dim=32, special_ids=encoder.special_ids.tolist())
    return wide.eval()


def test_the_commands_lead_from_a_bert_folder_to_an_artifact(
    tiny_network: FusedEncoder,
    tiny_tokenizer: PreTrainedTokenizerFast,
    text: Path,
    records: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bert = tmp_path / "bert"
    tiny_network.mlm.save_pretrained(bert)
    tiny_tokenizer.save_pretrained(bert)
    steps = [
        ["pretrain", "bert", "one", str(text), "-s", "steps=1", "-s", "batch_size=4"],
        ["warm-start", "one", "bert", "two", str(text)],
        [
            "finetune",
            "two",
            "three",
            str(records),
            *"-s steps=1 -s batch_size=4 -s k_query=32 -s k_document=64".split(),
        ],
        ["export", "three", "artifact", "--precision", "fp32"],
    ]
    monkeypatch.chdir(tmp_path)
    for step in steps:
        result = CliRunner().invoke(model.cli.app, step)
        assert result.exit_code == 0, (step, result.output, result.exception)
    assert len(load(tmp_path / "three").facts.history) == 3
    assert Artifact.open(tmp_path / "artifact").manifest.precision == "fp32"
    assert len(read(tmp_path / "three.log.jsonl", "fused")) == 1


@pytest.mark.parametrize(
    ("option", "complaint"), [("stepz=1", "stepz"), ("steps=0", "greater than or equal to 1"), ("seed=x", "seed=x")]
)
def test_an_option_that_is_unknown_or_impossible_is_wrong_usage(option: str, complaint: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(model.cli.app, ["pretrain", "in", str(tmp_path / "out"), "text", "-s", option])
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.replace("│", " ").split())
