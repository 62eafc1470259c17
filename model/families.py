"""The families of BERT: networks that compute what BERT computes and only name it otherwise.

All that follows (losses, graph, serving) knows one network, `BertForMaskedLM`. Here is what the weights and the
configuration of DistilBERT, RoBERTa and ELECTRA are called there. A network that differs in more than names is refused
by its name, before anything is trained on it; nothing is approximated.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, BertConfig, PreTrainedConfig

from model.lines import SourceError

HEAD, TRANSFORM = "cls.predictions.", "cls.predictions.transform."


@dataclass(frozen=True)
class Family:
    """How a family says what BERT says.

    Attributes:
        names: Parts of its weights' names and BERT's, replaced in this order.
        fields: BERT's fields of the configuration that it calls otherwise.
        late_positions: Its positions count from the padding id + 1; the rows before mean nothing.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    late_positions: bool = False

    def rename(self, name: str) -> str:
        """BERT's name of a weight.

        >>> FAMILIES["distilbert"].rename("distilbert.transformer.layer.3.attention.q_lin.weight")
        'bert.encoder.layer.3.attention.self.query.weight'
        """
        for theirs, ours in self.names.items():
            name = name.replace(theirs, ours)
        return name


_DISTILBERT = Family(
    names={
        "distilbert.transformer.": "bert.encoder.",
        "distilbert.": "bert.",
        "attention.q_lin": "attention.self.query",
        "attention.k_lin": "attention.self.key",
        "attention.v_lin": "attention.self.value",
        "attention.out_lin": "attention.output.dense",
        "sa_layer_norm": "attention.output.LayerNorm",
        "ffn.lin1": "intermediate.dense",
        "ffn.lin2": "output.dense",
        "output_layer_norm": "output.LayerNorm",
        "vocab_transform": TRANSFORM + "dense",
        "vocab_layer_norm": TRANSFORM + "LayerNorm",
        "vocab_projector": HEAD + "decoder",
    },
    fields={
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    },
)
_ROBERTA = Family(
    names={
        "roberta.": "bert.",
        "lm_head.dense": TRANSFORM + "dense",
        "lm_head.layer_norm": TRANSFORM + "LayerNorm",
        "lm_head.": HEAD,
    },
    late_positions=True,
)
_ELECTRA = Family(
    names={"electra.": "bert.", "generator_predictions.": TRANSFORM, "generator_lm_head": HEAD + "decoder"}
)

FAMILIES: Mapping[str, Family] = {
    "bert": Family(),
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
    "electra": _ELECTRA,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
"""By `model_type` of `config.json`."""


def read_config(folder: Path) -> PreTrainedConfig:
    """The family's own configuration.

    Raises:
        SourceError: It is damaged, or that of a network that no BERT is equal to.
    """
    file = folder / "config.json"
    try:
        said = json.loads(file.read_bytes())
        kind = said.get("model_type")
        if kind not in FAMILIES:
            raise SourceError(f"{file}: a network of model_type {kind!r} is no BERT; these are: {', '.join(FAMILIES)}")
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
        reasons = _differences(config, said)
    except (ValueError, TypeError, AttributeError, StrictDataclassError) as error:
        raise SourceError(f"{file} is damaged ({error}); copy the folder again") from error
    if reasons:
        raise SourceError(f"{file}: a {kind} with {', '.join(reasons)} computes something else than BERT")
    return config


def bert_config(config: PreTrainedConfig) -> BertConfig:
    """The configuration of the BERT that a network of `FAMILIES` is."""
    family = FAMILIES[config.model_type]
    theirs = {name: family.fields.get(name, name) for name in _FIELDS}
    said = {name: getattr(config, their) for name, their in theirs.items() if hasattr(config, their)}
    if family.late_positions:
        said["max_position_embeddings"] -= config.pad_token_id + 1
    return BertConfig(**said)


_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
)


def _differences(config: PreTrainedConfig, said: Mapping[str, Any]) -> list[str]:
    """What sets a network apart from the BERT that is exported."""
    wanted = {
        "hidden_act": (bert_config(config).hidden_act, "gelu"),
        "position_embedding_type": (said.get("position_embedding_type", "absolute"), "absolute"),
        "is_decoder": (getattr(config, "is_decoder", False), False),
        "embedding_size": (getattr(config, "embedding_size", config.hidden_size), config.hidden_size),
        "auto_map": (said.get("auto_map"), None),  # it has code of its own
    }
    return [f"{name}={found!r}" for name, (found, only) in wanted.items() if found != only]
