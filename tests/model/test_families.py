"""Every family gives the same numbers as a BERT as it gives as itself."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
    CamembertConfig,
    CamembertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertModel,
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from model.bert import load_bert, quiet
from model.families import FAMILIES, bert_config, read_config
from model.lines import SourceError

PAD, POSITIONS, V = 1, 24, 60

SIZE: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.3,
    "pad_token_id": PAD,
}
ROBERTA: dict[str, Any] = {
    **SIZE,
    "max_position_embeddings": POSITIONS + PAD + 1,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
DISTILBERT = DistilBertConfig(
    vocab_size=V,
    dim=32,
    n_layers=2,
    n_heads=4,
    hidden_dim=48,
    max_position_embeddings=POSITIONS,
    initializer_range=0.3,
    pad_token_id=PAD,
)
ELECTRA = ElectraConfig(**SIZE, embedding_size=32)

WITH_HEAD: list[tuple[type[PreTrainedModel], PreTrainedConfig]] = [
    (BertForMaskedLM, BertConfig(**SIZE)),
    (BertForPreTraining, BertConfig(**SIZE)),
    (CamembertForMaskedLM, CamembertConfig(**ROBERTA)),
    (DistilBertForMaskedLM, DISTILBERT),
    (ElectraForMaskedLM, ELECTRA),
    (RobertaForMaskedLM, RobertaConfig(**ROBERTA)),
    (XLMRobertaForMaskedLM, XLMRobertaConfig(**ROBERTA)),
]
WITHOUT_HEAD: list[tuple[type[PreTrainedModel], PreTrainedConfig]] = [
    (BertModel, BertConfig(**SIZE)),
    (BertForSequenceClassification, BertConfig(**SIZE)),
    (DistilBertModel, DISTILBERT),
    (ElectraForPreTraining, ELECTRA),
    (RobertaModel, RobertaConfig(**ROBERTA)),
]


def saved(kind: type[PreTrainedModel], config: PreTrainedConfig, folder: Path) -> Path:
    torch.manual_seed(3)
    network = kind(config)
    with torch.no_grad():
        for parameter in network.parameters():  # also where transformers starts with 0 or 1
            parameter.add_(torch.randn_like(parameter) * 0.1)
    with quiet():
        network.save_pretrained(folder)
    return folder


def batch() -> dict[str, Tensor]:
    """Texts of different lengths, one of them as long as the network can read."""
    generator = torch.Generator().manual_seed(5)
    input_ids = torch.randint(PAD + 1, V, (3, POSITIONS), generator=generator)
    attention_mask = torch.arange(POSITIONS) < torch.tensor([[POSITIONS], [7], [1]])
    return {"input_ids": input_ids.where(attention_mask, PAD), "attention_mask": attention_mask.long()}


def assert_same_where_attended(found: Tensor, wanted: Tensor) -> None:
    attended = batch()["attention_mask"].bool()
    torch.testing.assert_close(found[attended], wanted[attended], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "config"), [*WITH_HEAD, *WITHOUT_HEAD], ids=lambda value: getattr(value, "__name__", "")
)
@torch.no_grad()
def test_hidden_states_are_the_familys_own(
    kind: type[PreTrainedModel], config: PreTrainedConfig, tmp_path: Path
) -> None:
    folder = saved(kind, config, tmp_path)
    with quiet():
        own = AutoModel.from_pretrained(folder).eval()
    found = load_bert(folder).bert(**batch()).last_hidden_state
    assert found.std() > 0.1
    assert_same_where_attended(found, own(**batch()).last_hidden_state)


@pytest.mark.parametrize(("kind", "config"), WITH_HEAD, ids=lambda value: getattr(value, "__name__", ""))
@torch.no_grad()
def test_logits_are_the_familys_own(kind: type[PreTrainedModel], config: PreTrainedConfig, tmp_path: Path) -> None:
    folder = saved(kind, config, tmp_path)
    with quiet():
        own = AutoModelForMaskedLM.from_pretrained(folder).eval()
    assert_same_where_attended(load_bert(folder)(**batch()).logits, own(**batch()).logits)


def test_every_family_is_tested() -> None:
    assert {config.model_type for _, config in WITH_HEAD} == set(FAMILIES)


def test_positions_before_the_first_are_not_counted(tmp_path: Path) -> None:
    folder = saved(RobertaForMaskedLM, RobertaConfig(**ROBERTA), tmp_path)
    assert bert_config(read_config(folder)).max_position_embeddings == POSITIONS
    assert load_bert(folder).bert.embeddings.position_embeddings.weight.shape == (POSITIONS, 32)


def test_dropout_of_a_family_is_kept() -> None:
    config = bert_config(DistilBertConfig(dropout=0.25, attention_dropout=0.35))
    assert config.hidden_dropout_prob == 0.25
    assert config.attention_probs_dropout_prob == 0.35


def test_another_network_is_refused_with_the_list_of_those_that_are_not(tmp_path: Path) -> None:
    AlbertConfig(vocab_size=V).save_pretrained(tmp_path)
    with pytest.raises(
        SourceError, match=r"model_type 'albert' is no BERT; these are: bert, camembert, distilbert, ele"
    ):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"hidden_act": "relu"}, "a bert with hidden_act='relu'"),
        ({"hidden_act": "gelu_new"}, "hidden_act='gelu_new'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ({"is_decoder": True}, "is_decoder=True"),
        ({"auto_map": {"AutoModel": "modeling.Other"}}, "auto_map="),
        ({"model_type": "electra", "embedding_size": 16}, "an? electra with embedding_size=16"),
        ({"model_type": "distilbert", "activation": "relu"}, "hidden_act='relu'"),
    ],
    ids=lambda value: "",
)
def test_a_variant_that_computes_something_else_is_refused_early(
    fields: dict[str, object], complaint: str, tmp_path: Path
) -> None:
    config = {"model_type": "bert", **SIZE, **fields}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match=f"{complaint}.*computes something else than BERT"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    "content", ["{", "[]", json.dumps({"model_type": "bert", "hidden_size": "large"})], ids=["cut", "list", "type"]
)
def test_a_damaged_configuration_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(SourceError, match=r"config\.json is damaged"):
        read_config(tmp_path)
