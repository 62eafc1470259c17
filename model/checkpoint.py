"""A folder to train on from: `transformers` layout for the body and its MLM head, one file for the heads of ours.

Anyone can continue from it, with this project or with plain `transformers`. It is not what is served: see `artifact`.
"""

import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer, BertForMaskedLM, PreTrainedTokenizerBase

from model.dupmae import Activation, DupMAE, FusedEncoder

HEADS, FACTS = "dupmae.safetensors", "dupmae.json"


class Facts(BaseModel):
    """What `dupmae.json` says: the shape of our heads, and each training run so far in a line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dense_dim: int = 384
    activation: Activation = "relu"
    history: tuple[str, ...] = ()

    def after(self, run: str) -> "Facts":
        """The facts with one more run in the history."""
        return self.model_copy(update={"history": (*self.history, run)})


class Checkpoint(NamedTuple):
    """A network with its tokenizer; `model.encoder` is the part that is exported."""

    model: DupMAE
    tokenizer: PreTrainedTokenizerBase
    facts: Facts

    def save(self, folder: Path) -> None:
        """Write the folder; it appears whole or not at all, and replaces what stood there."""
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        self.model.encoder.mlm.save_pretrained(partial)
        self.tokenizer.save_pretrained(partial)
        save_file(_heads(self.model), partial / HEADS)
        (partial / FACTS).write_text(self.facts.model_dump_json(indent=2))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)


def load(folder: Path, *, fresh: Facts | None = None) -> Checkpoint:
    """Load a checkpoint, or any BERT folder, whose missing heads then start from the current random state.

    Args:
        folder: With `config.json`, `model.safetensors` and a tokenizer.
        fresh: The shape of new heads where the folder has none; the paper's 384 dimensions, or the body's if fewer.

    Raises:
        FileNotFoundError: No model there.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: no config.json; name a folder written by dupmae or by save_pretrained")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    mlm = BertForMaskedLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    ours = (folder / FACTS).is_file()
    new = fresh or Facts(dense_dim=min(384, mlm.config.hidden_size))
    facts = Facts.model_validate_json((folder / FACTS).read_text()) if ours else new
    special = [i for i in tokenizer.all_special_ids if i is not None]
    model = DupMAE(FusedEncoder(mlm, dense_dim=facts.dense_dim, special_ids=special, activation=facts.activation))
    if ours:
        _restore(model, load_file(folder / HEADS))
    return Checkpoint(model, tokenizer, facts)


def _parts(model: DupMAE) -> dict[str, nn.Module]:
    return {"project": model.encoder.project, "terms": model.encoder.terms, "decoder": model.decoder}


def _heads(model: DupMAE) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.contiguous()
        for name, part in _parts(model).items()
        for key, value in part.state_dict().items()
    }


def _restore(model: DupMAE, heads: dict[str, torch.Tensor]) -> None:
    for name, part in _parts(model).items():
        prefix = name + "."
        part.load_state_dict({key.removeprefix(prefix): v for key, v in heads.items() if key.startswith(prefix)})
