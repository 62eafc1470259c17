"""A folder to train on from: `transformers` layout for the body and its MLM head, one file for the heads of ours.

Anyone can continue from it, with this project or with plain `transformers`. It is not what is served: see `artifact`.
"""

import json
import logging
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertForMaskedLM, PreTrainedTokenizerBase

from model.artifact import MANIFEST, Artifact, ArtifactError
from model.atomic import before, replacing
from model.bert import load_bert, quiet, random_bert
from model.dupmae import Activation, DupMAE, FusedEncoder
from model.families import read_config
from model.graph import EXPANSIONS
from model.lines import SourceError
from model.thaw import thaw
from model.tokenizer import load_tokenizer

HEADS, FACTS, CONFIG = "dupmae.safetensors", "dupmae.json", "config.json"

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")

log = logging.getLogger("dupmae.model")


class Facts(BaseModel):
    """What `dupmae.json` says: the shape of our heads, what was done to the weights, and what training knew.

    Attributes:
        dense_dim: d', the width of the reduced [CLS] vector.
        activation: What becomes of pooled values.
        rarity_weight: As `Manifest.rarity_weight`; `dupmae model balance` chooses it.
        expansions: How many words a text may be given without holding them; None for any. `dupmae model narrow` chooses
            them.
        history: A line for each run, and for where the weights came from if that was no BERT.
        k_query: OT entries of a query in training; None before there was any.
        k_document: The same for a document.
        query_tokens: Longest query in training.
        document_tokens: Longest document in training.
        evaluation: Collection -> metric -> value, of these very weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dense_dim: int = 384
    activation: Activation = "relu"
    rarity_weight: float | None = None
    expansions: int | None = None
    history: tuple[str, ...] = ()
    k_query: int | None = None
    k_document: int | None = None
    query_tokens: int | None = None
    document_tokens: int | None = None
    evaluation: dict[str, dict[str, float]] = {}

    def after(self, run: str, **known: JsonValue) -> "Facts":
        """The facts after one more run, and what it made `known`; figures of the weights before it are gone.

        >>> Facts(evaluation={"dev": {"nDCG@10": 0.4}}).after("finetune", k_query=64).model_dump(exclude_defaults=True)
        {'history': ('finetune',), 'k_query': 64}
        """
        fields = {**self.model_dump(), "evaluation": {}, **known, "history": (*self.history, run)}
        return Facts.model_validate(fields)


class Checkpoint(NamedTuple):
    """A network with its tokenizer; `model.encoder` is the part that is exported."""

    model: DupMAE
    tokenizer: PreTrainedTokenizerBase
    facts: Facts

    def save(self, folder: Path) -> None:
        """Write the folder, which replaces what stood there once all of it is on disk; see `atomic.replacing`."""
        with replacing(folder) as new:
            with quiet():
                self.model.encoder.mlm.save_pretrained(new)
            self.tokenizer.save_pretrained(new)
            save_file(_heads(self.model), new / HEADS)
            (new / FACTS).write_text(self.facts.model_dump_json(indent=2), encoding="utf-8")


def load(folder: Path, *, fresh: Facts | None = None, random_weights: bool = False) -> Checkpoint:
    """Load anything that training can start from.

    That is a checkpoint; a folder of any of `families.FAMILIES`; or an artifact, whose weights are read back. What the
    folder lacks starts from torch's present random state: `W_cls`, the [CLS] decoder, the MLM head.

    Args:
        folder: One of these.
        fresh: The shape of new heads where the folder has none; the paper's 384 dimensions, or the body's if fewer.
        random_weights: Of a folder with `config.json` and a tokenizer take only these, and draw all weights.

    Raises:
        SourceError: It is none of these, lacks something, or is damaged.
        ArtifactError: The same of an artifact.
    """
    if (folder / MANIFEST).is_file() and not random_weights:
        return _thawed(folder)
    _check(folder, random_weights=random_weights)
    tokenizer = load_tokenizer(folder)
    mlm = random_bert(folder) if random_weights else load_bert(folder)
    if len(tokenizer) > mlm.config.vocab_size:
        raise SourceError(
            f"{folder}: {len(tokenizer)} tokens in the tokenizer, {mlm.config.vocab_size} in config.json; "
            "take both from one model"
        )
    if (folder / FACTS).is_file() and not random_weights:
        facts = _read_facts(folder / FACTS)
        model = _network(mlm, tokenizer, facts)
        _restore(model, facts, folder / HEADS)
        return Checkpoint(model, tokenizer, facts)
    facts = fresh or Facts(dense_dim=min(384, mlm.config.hidden_size))
    if origin := "random weights" if random_weights else _other_family(folder):
        facts = facts.after(origin)
    return Checkpoint(_network(mlm, tokenizer, facts), tokenizer, facts)


@torch.no_grad()
def with_heads(
    checkpoint: Checkpoint, *, dense_dim: int | None = None, activation: Activation | None = None
) -> Checkpoint:
    """The same network with a `W_cls` of another size, another activation, or both; modules are shared, not copied.

    A smaller `W_cls` is the one whose inner products come nearest to the old one's: its first singular directions. A
    larger one is the old one with random rows below. If nothing is new, it is the checkpoint as given.
    """
    old, facts = checkpoint.model.encoder, checkpoint.facts
    if dense_dim in (None, facts.dense_dim) and activation in (None, facts.activation):
        return checkpoint
    new = {"dense_dim": dense_dim or facts.dense_dim, "activation": activation or facts.activation}
    facts = facts.after(f"heads {json.dumps(new)}", **new)
    model = _network(old.mlm, checkpoint.tokenizer, facts)
    model.decoder = checkpoint.model.decoder
    model.encoder.terms.load_state_dict(old.terms.state_dict())
    model.encoder.expansions = old.expansions
    weight = model.encoder.project.weight
    if facts.dense_dim < len(old.project.weight):
        _, sizes, directions = torch.linalg.svd(old.project.weight, full_matrices=False)
        kept = min(facts.dense_dim, len(sizes))
        weight[:kept] = sizes[:kept, None] * directions[:kept]
    else:
        weight[: len(old.project.weight)] = old.project.weight
    return Checkpoint(model, checkpoint.tokenizer, facts)


def _thawed(folder: Path) -> Checkpoint:
    artifact, tokenizer = Artifact.open(folder), load_tokenizer(folder)
    manifest, encoder = artifact.manifest, thaw(artifact, pad_id=tokenizer.pad_token_id)
    special = set(encoder.special_ids.tolist())
    if others := special.difference(tokenizer.all_special_ids):
        tokenizer = load_tokenizer(folder, special_ids=others)
    if special != set(tokenizer.all_special_ids):
        raise ArtifactError(
            f"{folder}: the graph has the special ids {sorted(special)}, the tokenizer "
            f"{sorted(tokenizer.all_special_ids)}; continue from the checkpoint"
        )
    runs = manifest.training.get("runs")
    facts = Facts(
        dense_dim=manifest.dense_dim,
        activation=manifest.activation,
        rarity_weight=manifest.rarity_weight,
        expansions=None if encoder.expansions is None else len(encoder.expansions),
        history=tuple(map(str, runs)) if isinstance(runs, list) else (),
        k_query=manifest.k_query,
        k_document=manifest.k_document,
        query_tokens=manifest.max_query_tokens,
        document_tokens=manifest.max_document_tokens,
    )
    log.warning(
        "%s is an artifact: its [CLS] decoder is new, its weights are as %s left them", folder, manifest.precision
    )
    origin = f"thawed from {manifest.name} ({manifest.precision}, {artifact.fingerprint[:12]})"
    return Checkpoint(DupMAE(encoder).eval(), tokenizer, facts.after(origin))


def _network(mlm: BertForMaskedLM, tokenizer: PreTrainedTokenizerBase, facts: Facts) -> DupMAE:
    special = [int(i) for i in tokenizer.all_special_ids]
    encoder = FusedEncoder(mlm, dense_dim=facts.dense_dim, special_ids=special, activation=facts.activation)
    return DupMAE(encoder).eval()


def _other_family(folder: Path) -> str:
    kind = read_config(folder).model_type
    return "" if kind == "bert" else f"weights of a {kind}"


def _check(folder: Path, *, random_weights: bool) -> None:
    """Say what is missing before anything is read."""
    if old := before(folder):
        raise SourceError(f"{folder}: writing it was cut short; the one before is whole, rename {old} to {folder.name}")
    if not (folder / CONFIG).is_file():
        inner = [path.parent.name for path in folder.glob(f"*/{CONFIG}")]
        hint = f"did you mean {folder / inner[0]}?" if inner else "name a checkpoint, a BERT folder, or an artifact"
        raise SourceError(f"{folder}: neither {CONFIG} nor {MANIFEST} is there; {hint}")
    if not random_weights and not any((folder / name).is_file() for name in WEIGHTS):
        raise SourceError(f"{folder}: no {WEIGHTS[0]}; copy it there, or give --random-weights to draw all weights")


def _read_facts(file: Path) -> Facts:
    try:
        return Facts.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise SourceError(
            f"{file}, {where}: {first['msg']}; it was written by another release, or is damaged"
        ) from error


def _parts(model: DupMAE) -> dict[str, nn.Module]:
    return {"project": model.encoder.project, "terms": model.encoder.terms, "decoder": model.decoder}


def _heads(model: DupMAE) -> dict[str, Tensor]:
    heads = {
        f"{name}.{key}": value.contiguous()
        for name, part in _parts(model).items()
        for key, value in part.state_dict().items()
    }
    expansions = model.encoder.expansions
    return heads if expansions is None else heads | {EXPANSIONS: expansions}


def _restore(model: DupMAE, facts: Facts, file: Path) -> None:
    try:
        heads = load_file(file)
        model.encoder.expansions = heads.pop(EXPANSIONS, None)
        _check_expansions(model.encoder, facts.expansions)
        for name, part in _parts(model).items():
            prefix = name + "."
            part.load_state_dict({key.removeprefix(prefix): v for key, v in heads.items() if key.startswith(prefix)})
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SourceError(f"{file} cannot be read, or is of another model ({reason}); copy it again") from error


def _check_expansions(encoder: FusedEncoder, wanted: int | None) -> None:
    found = None if encoder.expansions is None else len(encoder.expansions)
    if found != wanted:
        raise ValueError(f"{found} expansions, {FACTS} says {wanted}")
