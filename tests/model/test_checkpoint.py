"""What training can start from, and what it leaves behind."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from model.artifact import MANIFEST, Artifact, ArtifactError
from model.bert import quiet
from model.checkpoint import FACTS, HEADS, Checkpoint, Facts, load, with_heads
from model.dupmae import Activation, DupMAE, FusedEncoder
from model.encoder import Encoder
from model.export import ExportError, agreement, default_facts, docstrings, export, read_facts
from model.lines import SourceError
from tests.conftest import TEXTS

WEIGHTS = "model.safetensors"


@pytest.fixture
def checkpoint(tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast) -> Checkpoint:
    torch.manual_seed(0)
    facts = Facts(dense_dim=16, history=("pretrain",), k_query=8, evaluation={"dev": {"nDCG@10": 0.5}})
    return Checkpoint(DupMAE(copy.deepcopy(tiny_network)), tiny_tokenizer, facts)


@pytest.fixture
def folder(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def bert(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """What anyone may have: a body without a head."""
    with quiet():
        BertModel(checkpoint.model.encoder.mlm.config, add_pooling_layer=False).save_pretrained(tmp_path / "bert")
    checkpoint.tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == name_too and torch.equal(a, b) for (name, a), (name_too, b) in pairs)


def test_a_checkpoint_comes_back_as_it_was_saved(checkpoint: Checkpoint, folder: Path) -> None:
    checkpoint.save(folder)  # replaces the first
    loaded = load(folder)
    assert same(loaded.model, checkpoint.model)
    assert loaded.facts == checkpoint.facts
    assert loaded.tokenizer("the king")["input_ids"] == checkpoint.tokenizer("the king")["input_ids"]
    assert not loaded.model.training
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_saving_twice_gives_the_same_bytes(checkpoint: Checkpoint, folder: Path, tmp_path: Path) -> None:
    load(folder).save(tmp_path / "again")
    for path in folder.iterdir():
        if path.name != "tokenizer_config.json":  # it says where it was read from
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_loading_and_saving_print_nothing(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(folder).save(tmp_path / "again")
    assert capfd.readouterr() == ("", "")


def test_plain_transformers_reads_it(checkpoint: Checkpoint, folder: Path) -> None:
    assert same(BertForMaskedLM.from_pretrained(folder), checkpoint.model.encoder.mlm)


def test_facts_of_an_earlier_release_are_read(folder: Path) -> None:
    (folder / FACTS).write_text(json.dumps({"dense_dim": 16, "activation": "relu", "history": ["pretrain"]}))
    assert load(folder).facts == Facts(dense_dim=16, history=("pretrain",))


def test_a_body_gets_new_heads_of_the_shape_that_was_asked_for(bert: Path) -> None:
    torch.manual_seed(1)
    loaded = load(bert, fresh=Facts(dense_dim=8, activation="log1p"))
    assert loaded.facts == Facts(dense_dim=8, activation="log1p")
    assert loaded.model.encoder.project.weight.shape == (8, 32)
    assert loaded.model.encoder.terms.activation == "log1p"
    torch.manual_seed(1)
    assert same(load(bert, fresh=loaded.facts).model, loaded.model)


def test_a_small_body_has_no_more_dimensions_than_its_own(bert: Path) -> None:
    assert load(bert).facts == Facts(dense_dim=32)


def test_another_family_becomes_a_checkpoint(
    tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = RobertaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=65,
        type_vocab_size=1,
        pad_token_id=0,
    )
    with quiet():
        RobertaForMaskedLM(config).save_pretrained(tmp_path / "roberta")
    tiny_tokenizer.save_pretrained(tmp_path / "roberta")
    loaded = load(tmp_path / "roberta")
    assert loaded.facts.history == ("weights of a roberta",)
    assert not caplog.records
    loaded.save(tmp_path / "checkpoint")
    again = load(tmp_path / "checkpoint")
    assert same(again.model, loaded.model)
    facts = default_facts("roberta", again.model.encoder, again.facts)
    assert facts.max_query_tokens == facts.max_document_tokens == 64
    export(again.model.encoder, again.tokenizer, tmp_path / "a", precision="fp32", facts=facts, card="", texts=TEXTS)


def test_random_weights_need_a_configuration_and_a_tokenizer_only(bert: Path) -> None:
    (bert / WEIGHTS).unlink()
    with pytest.raises(SourceError, match=r"no model\.safetensors; copy it there, or give --random-weights"):
        load(bert)
    torch.manual_seed(2)
    loaded = load(bert, random_weights=True)
    assert loaded.facts == Facts(dense_dim=32, history=("random weights",))
    torch.manual_seed(2)
    assert same(load(bert, random_weights=True).model, loaded.model)


def test_random_weights_of_a_checkpoint_keep_nothing_that_it_learned(folder: Path) -> None:
    loaded = load(folder, random_weights=True)
    assert loaded.facts == Facts(dense_dim=32, history=("random weights",))


def test_a_tokenizer_of_another_model_is_refused(bert: Path) -> None:
    with quiet():
        BertModel(
            BertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
        ).save_pretrained(bert)
    with pytest.raises(
        SourceError, match=r"\d+ tokens in the tokenizer, 100 in config\.json; take both from one model"
    ):
        load(bert)


@pytest.mark.parametrize("random_weights", [False, True])
def test_a_folder_of_something_else_is_named(tmp_path: Path, random_weights: bool) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(SourceError, match=r"neither config\.json nor manifest\.json is there; name a checkpoint"):
            load(folder, random_weights=random_weights)


def test_a_folder_with_a_model_inside_is_a_hint(folder: Path) -> None:
    with pytest.raises(SourceError, match=rf"did you mean {folder}\?"):
        load(folder.parent)


def test_the_folder_before_a_cut_writing_is_named(folder: Path) -> None:
    folder.rename(folder.with_name("checkpoint.old"))
    with pytest.raises(SourceError, match=r"cut short; the one before is whole, rename .*checkpoint\.old to"):
        load(folder)


def test_cut_heads_are_refused(folder: Path) -> None:
    content = (folder / HEADS).read_bytes()
    for damaged in (content[:-4], b""):
        (folder / HEADS).write_bytes(damaged)
        with pytest.raises(SourceError, match=r"dupmae\.safetensors cannot be read, or is of another model"):
            load(folder)
    (folder / HEADS).unlink()
    with pytest.raises(SourceError, match=r"dupmae\.safetensors cannot be read"):
        load(folder)


def test_heads_of_another_model_are_refused(folder: Path) -> None:
    heads = load_file(folder / HEADS)
    save_file({**heads, "project.weight": torch.zeros(16, 8)}, folder / HEADS)
    with pytest.raises(SourceError, match=r"is of another model .*size mismatch"):
        load(folder)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "file: Invalid JSON"),
        ('{"dense_dim": "wide"}', "dense_dim: Input should be a valid integer"),
        ('{"dims": 3}', "dims"),
    ],
)
def test_damaged_facts_are_refused(folder: Path, content: str, complaint: str) -> None:
    (folder / FACTS).write_text(content)
    with pytest.raises(SourceError, match=rf"dupmae\.json, {complaint}"):
        load(folder)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_artifact_is_trained_on(
    precision: str,
    tiny_artifact: Artifact,
    tiny_artifact_int8: Artifact,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    artifact = tiny_artifact if precision == "fp32" else tiny_artifact_int8
    loaded = load(artifact.path)
    assert f"its [CLS] decoder is new, its weights are as {precision} left them" in caplog.text
    assert loaded.facts == Facts(
        dense_dim=16,
        rarity_weight=0.2,
        history=(f"thawed from tiny ({precision}, {artifact.fingerprint[:12]})",),
        k_query=16,
        k_document=32,
        query_tokens=32,
        document_tokens=64,
    )
    found = agreement(loaded.model.encoder, Encoder(artifact, threads=1), TEXTS)
    assert found.cls_error < (1e-5 if precision == "fp32" else 0.2)
    loaded.save(tmp_path / "checkpoint")
    assert same(load(tmp_path / "checkpoint").model, loaded.model)


def test_an_artifact_tells_the_runs_that_made_it(
    checkpoint: Checkpoint, tiny_artifact: Artifact, tmp_path: Path
) -> None:
    facts = default_facts("tiny", checkpoint.model.encoder, checkpoint.facts)
    encoder, tokenizer = checkpoint.model.encoder, checkpoint.tokenizer
    export(encoder, tokenizer, tmp_path / "a", precision="fp32", facts=facts, card="", texts=docstrings(3))
    loaded = load(tmp_path / "a")
    assert loaded.facts.history[:-1] == ("pretrain",)
    assert loaded.facts.evaluation == {}  # of the artifact, not of what it is made into


def test_special_tokens_without_a_role_stay_special(checkpoint: Checkpoint, tmp_path: Path) -> None:
    encoder = checkpoint.model.encoder
    checkpoint.tokenizer.save_pretrained(tmp_path / "tokenizer")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "tokenizer", extra_special_tokens=["king"])
    encoder.special_ids = torch.tensor(tokenizer.all_special_ids)
    facts = default_facts("tiny", encoder)
    export(encoder, tokenizer, tmp_path / "a", precision="fp32", facts=facts, card="", texts=TEXTS)
    loaded = load(tmp_path / "a")
    assert set(loaded.tokenizer.all_special_tokens) == set(tokenizer.all_special_tokens)
    assert loaded.tokenizer("the king")["input_ids"] == tokenizer("the king")["input_ids"]


def test_a_damaged_artifact_is_refused(tiny_artifact: Artifact, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(tiny_artifact.path, tmp_path / "copy"))
    (copied / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match="is damaged"):
        load(copied)
    (copied / MANIFEST).unlink()
    with pytest.raises(SourceError, match=r"neither config\.json"):
        load(copied)


def test_what_training_knew_is_what_export_says(checkpoint: Checkpoint) -> None:
    encoder = checkpoint.model.encoder
    assert default_facts("tiny", encoder).k_query == 64
    known = checkpoint.facts.after("finetune", k_document=32, query_tokens=40, document_tokens=100)
    known = known.model_copy(update={"evaluation": {"dev": {"nDCG@10": 0.6}}})
    facts = default_facts("tiny", encoder, known)
    assert (facts.k_query, facts.k_document) == (8, 32)
    assert (facts.max_query_tokens, facts.max_document_tokens) == (40, 100)
    assert facts.training == {"runs": ["pretrain", "finetune"]}
    assert facts.evaluation == {"dev": {"nDCG@10": 0.6}}


def test_a_file_of_facts_has_the_last_word(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "facts.json").write_text(json.dumps({"licence": "MIT", "k_document": 9}))
    facts = read_facts(tmp_path / "facts.json", default_facts("tiny", checkpoint.model.encoder, checkpoint.facts))
    assert (facts.name, facts.licence, facts.k_query, facts.k_document) == ("tiny", "MIT", 8, 9)
    with pytest.raises(ExportError, match="name: Field required"):
        read_facts(tmp_path / "facts.json")


def test_figures_are_of_the_weights_that_they_were_measured_on() -> None:
    measured = Facts(evaluation={"dev": {"nDCG@10": 0.5}}, k_query=8)
    assert measured.after("pretrain") == Facts(history=("pretrain",), k_query=8)
    again = measured.after("finetune", evaluation={"dev": {"nDCG@10": 0.6}})
    assert again.evaluation == {"dev": {"nDCG@10": 0.6}}


@torch.no_grad()
def test_a_smaller_projection_keeps_scores_as_nearly_as_it_can(checkpoint: Checkpoint) -> None:
    old = checkpoint.model.encoder.project.weight
    ranked = old[:10].t() @ torch.randn(10, 6) @ torch.randn(6, 10) @ old[:10]  # of rank 6
    old.copy_(torch.linalg.qr(torch.randn(16, 16)).Q @ torch.cat([ranked[:6], torch.zeros(10, 32)]))
    new = with_heads(checkpoint, dense_dim=6)
    hidden = torch.randn(50, 32)
    wanted, found = hidden @ old.t(), new.model.encoder.project(hidden)
    assert found.shape == (50, 6)
    torch.testing.assert_close(found @ found.t(), wanted @ wanted.t(), rtol=1e-4, atol=1e-3)


def test_a_larger_projection_begins_with_the_old_one(checkpoint: Checkpoint) -> None:
    old = checkpoint.model.encoder.project.weight
    weight = with_heads(checkpoint, dense_dim=40).model.encoder.project.weight
    assert weight.shape == (40, 32)
    assert torch.equal(weight[:16], old)
    assert weight[16:].norm(dim=1).min() > 0


@pytest.mark.parametrize("activation", ["raw", "log1p"])
def test_another_activation_keeps_the_weights(checkpoint: Checkpoint, activation: Activation) -> None:
    torch.nn.init.normal_(checkpoint.model.encoder.terms.gain)
    new = with_heads(checkpoint, activation=activation)
    assert new.model.encoder.terms.activation == activation
    assert same(new.model, checkpoint.model)
    assert checkpoint.model.encoder.terms.activation == "relu"


def test_new_heads_are_in_the_history_and_measured_figures_gone(checkpoint: Checkpoint, tmp_path: Path) -> None:
    new = with_heads(checkpoint, dense_dim=8, activation="raw")
    assert new.facts.history == ("pretrain", 'heads {"dense_dim": 8, "activation": "raw"}')
    assert (new.facts.dense_dim, new.facts.activation, new.facts.evaluation) == (8, "raw", {})
    new.save(tmp_path / "new")
    assert same(load(tmp_path / "new").model, new.model)


@pytest.mark.parametrize("asked", [{}, {"dense_dim": 16}, {"activation": "relu"}])
def test_heads_that_are_as_asked_stay(checkpoint: Checkpoint, asked: dict[str, object]) -> None:
    assert with_heads(checkpoint, **asked) is checkpoint  # type: ignore[arg-type]  # a few of its arguments
