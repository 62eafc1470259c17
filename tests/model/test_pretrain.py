"""Pre-training on a network and a text small enough to learn in seconds."""

import copy
import math
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from model.checkpoint import Checkpoint, load
from model.distributed import Ranks
from model.options import PretrainOptions, TrainingError
from model.pretrain import pretrain
from model.tokens import tokenized
from tests.model.training import SENTENCES, log, save_bert, write_text

ALONE = Ranks(0, 1, torch.device("cpu"))
QUICK = {"batch_size": 8, "learning_rate": 3e-3, "head_learning_rate": 3e-3}


@pytest.fixture
def start(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Checkpoint:
    torch.manual_seed(0)
    return load(save_bert(tiny_tokenizer, tmp_path / "bert"))


def trained(start: Checkpoint, text: Path, **options: object) -> Checkpoint:
    chosen = PretrainOptions.model_validate(QUICK | options)
    runs = tokenized([text], start.tokenizer, chosen.max_tokens - 2, text.parent / "tokens")
    return pretrain(start, runs, chosen, ALONE, text.parent / "run")


def test_every_loss_falls(start: Checkpoint, tmp_path: Path) -> None:
    after = trained(start, write_text(tmp_path / "text.txt"), steps=60)
    for key in ("mlm", "cls", "bow"):
        losses = log(tmp_path / "run", key)
        assert len(losses) == 60
        assert sum(losses[-5:]) < 0.8 * sum(losses[:5]), key
    assert after.facts.history[-1].startswith("pretrain {")


@pytest.mark.parametrize(
    ("options", "terms"),
    [
        ({"bow_weight": 0}, {"mlm", "cls"}),  # RetroMAE
        ({"bow_weight": 0, "cls_weight": 0}, {"mlm"}),  # plain masked language
        ({"mlm_weight": 0, "cls_weight": 0}, {"bow"}),
    ],
)
def test_a_term_switched_off_is_neither_computed_nor_learned_from(
    start: Checkpoint, tmp_path: Path, options: dict[str, float], terms: set[str]
) -> None:
    decoder = copy.deepcopy(start.model.decoder.state_dict())
    trained(start, write_text(tmp_path / "text.txt"), steps=2, **options)
    assert {name for name in ("mlm", "cls", "bow") if log(tmp_path / "run", name)} == terms
    unmoved = all(torch.equal(value, decoder[name]) for name, value in start.model.decoder.state_dict().items())
    assert unmoved == ("cls" not in terms)


def test_a_frozen_body_does_not_move_and_its_heads_do(start: Checkpoint, tmp_path: Path) -> None:
    before = copy.deepcopy(start.model.state_dict())
    trained(start, write_text(tmp_path / "text.txt"), steps=2, freeze_body=True, cls_weight=0)
    moved = {name for name, value in start.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {
        name for name in before if name.startswith("encoder.mlm.cls.predictions") and "decoder.weight" not in name
    }
    assert all(parameter.requires_grad for parameter in start.model.parameters())


def test_texts_of_unknown_words_only_do_no_harm(start: Checkpoint, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join([*SENTENCES, "\u2603 " * 20] * 4))
    trained(start, text, steps=4)
    assert all(math.isfinite(loss) for loss in log(tmp_path / "run", "total"))


def test_the_released_codes_choices_learn_too(start: Checkpoint, tmp_path: Path) -> None:
    choices = {
        "bow_weight": 0.1,
        "bow_target": "mean",
        "bow_pool": "all",
        "decoder_input": "normed",
        "decoder_unit": "word",
        "corruption": "bert",
    }
    trained(start, write_text(tmp_path / "text.txt"), steps=40, **choices)
    losses = log(tmp_path / "run", "total")
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_texts_longer_than_the_network_are_refused(start: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="max_tokens=129, but the network has 128 positions"):
        trained(start, write_text(tmp_path / "text.txt"), max_tokens=129)


def test_a_run_without_any_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="all 0: nothing is left to learn"):
        PretrainOptions(mlm_weight=0, cls_weight=0, bow_weight=0)
