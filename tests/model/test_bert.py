"""What a folder lacks is said; what it has must be whole."""

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertModel
from transformers.utils import logging as transformers_logging

from model.bert import load_bert, near_identity, quiet, random_bert
from model.lines import SourceError

CONFIG = BertConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=20,
    initializer_range=0.3,
)
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with quiet():
        BertForMaskedLM(CONFIG).save_pretrained(tmp_path)
    return tmp_path


def change(folder: Path, **weights: torch.Tensor | None) -> None:
    """Write the weights anew, with these in place of theirs; None leaves one out."""
    found = load_file(folder / WEIGHTS) | {name.replace("__", "."): value for name, value in weights.items()}
    save_file({name: value for name, value in found.items() if value is not None}, folder / WEIGHTS, {"format": "pt"})


def test_a_whole_folder_is_read_in_silence(
    folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    mlm = load_bert(folder)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    assert mlm.cls.predictions.decoder.weight is mlm.bert.embeddings.word_embeddings.weight
    assert mlm.cls.predictions.decoder.bias is mlm.cls.predictions.bias


def test_a_missing_head_is_said_and_starts_near_the_identity(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with quiet():
        BertModel(CONFIG).save_pretrained(tmp_path)
    mlm = load_bert(tmp_path)
    assert "has no cls.predictions.bias and 5 more: these are new, so train them first" in caplog.text
    assert capfd.readouterr() == ("", "")
    assert mlm.cls.predictions.decoder.weight is mlm.bert.embeddings.word_embeddings.weight
    assert not mlm.cls.predictions.bias.any()
    hidden = mlm.bert(torch.arange(20)[None]).last_hidden_state
    features = mlm.cls.predictions.transform(hidden)
    assert torch.nn.functional.cosine_similarity(features, hidden, dim=-1).min() > 0.98


def test_near_the_identity_is_an_identity_after_the_norm() -> None:
    transform = BertForMaskedLM(CONFIG).cls.predictions.transform
    near_identity(transform)
    h = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.layer_norm(h, [16])
    assert (transform(h) - wanted).abs().mean() < 0.02


def test_a_head_without_its_bias_keeps_the_rest(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    dense = load_file(folder / WEIGHTS)["cls.predictions.transform.dense.weight"]
    change(folder, cls__predictions__bias=None, cls__predictions__decoder__bias=None)
    mlm = load_bert(folder)
    assert "has no cls.predictions.bias" in caplog.text
    assert torch.equal(mlm.cls.predictions.transform.dense.weight, dense)


def test_a_head_with_a_matrix_of_its_own_is_tied_and_that_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change(folder, cls__predictions__decoder__weight=torch.randn(50, 16))
    mlm = load_bert(folder)
    assert "the MLM head's own matrix is dropped" in caplog.text
    assert mlm.cls.predictions.decoder.weight is mlm.bert.embeddings.word_embeddings.weight
    words = load_file(folder / WEIGHTS)["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(mlm.bert.embeddings.word_embeddings.weight, words)


def test_a_body_that_lacks_a_weight_is_refused(folder: Path) -> None:
    change(folder, bert__encoder__layer__1__output__dense__weight=None)
    with pytest.raises(SourceError, match=r"weights lack bert\.encoder\.layer\.1\.output\.dense\.weight; copy"):
        load_bert(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    change(folder, bert__embeddings__position_embeddings__weight=torch.zeros(8, 16))
    with pytest.raises(SourceError, match=r"position_embeddings\.weight: other shapes than config\.json says"):
        load_bert(folder)


@pytest.mark.parametrize("bytes_left", [0, 6, 1000, -1])
def test_cut_weights_are_refused(folder: Path, bytes_left: int) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:bytes_left])
    with pytest.raises(SourceError, match=r"its weights cannot be read .*copy the folder again"):
        load_bert(folder)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x80\x02 no pickle"])
def test_damaged_weights_of_the_old_layout_are_refused(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(SourceError, match="its weights cannot be read"):
        load_bert(folder)


def test_half_precision_is_read_as_float32(folder: Path) -> None:
    half = {name: value.half() for name, value in load_file(folder / WEIGHTS).items()}
    save_file(half, folder / WEIGHTS, {"format": "pt"})
    assert {parameter.dtype for parameter in load_bert(folder).parameters()} == {torch.float32}


def test_the_old_layout_and_shards_are_read(folder: Path, tmp_path: Path) -> None:
    mlm = load_bert(folder)
    old, shards = tmp_path / "old", tmp_path / "shards"
    with quiet():
        mlm.save_pretrained(shards, max_shard_size="5KB")
    mlm.config.save_pretrained(old)
    torch.save(mlm.state_dict(), old / "pytorch_model.bin")
    for other in (old, shards):
        found = load_bert(other).state_dict()
        assert all(torch.equal(found[name], value) for name, value in mlm.state_dict().items())


def test_random_weights_are_drawn_from_torchs_generator(folder: Path) -> None:
    torch.manual_seed(1)
    first = random_bert(folder)
    second = random_bert(folder)
    torch.manual_seed(1)
    again = random_bert(folder)
    one, two, three = (network.bert.embeddings.word_embeddings.weight for network in (first, second, again))
    assert torch.equal(one, three)
    assert not torch.equal(one, two)
    assert not torch.equal(one, load_bert(folder).bert.embeddings.word_embeddings.weight)
    assert first.cls.predictions.decoder.weight is one


def test_quiet_leaves_transformers_as_loud_as_it_was() -> None:
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    with quiet():
        assert transformers_logging.get_verbosity() == logging.ERROR
        assert not transformers_logging.is_progress_bar_enabled()
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == before
