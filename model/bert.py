"""A folder of any family of BERT, read as `BertForMaskedLM`: the one network that is trained, exported and served.

`transformers` reads the folder as what it is, in whatever file layout of its age, and the weights are renamed.
"""

import logging
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, BertForMaskedLM, PreTrainedConfig, PreTrainedModel

from model.families import FAMILIES, HEAD, TRANSFORM, bert_config, read_config
from model.lines import SourceError

log = logging.getLogger("dupmae.model")

EMBEDDINGS = "bert.embeddings."


def load_bert(folder: Path) -> BertForMaskedLM:
    """Read a folder of any of `FAMILIES`, in float32.

    What the MLM head lacks is new, and said in the log. The head's matrix is always the word embeddings.

    Args:
        folder: With `config.json` and weights, as `save_pretrained` writes them.

    Raises:
        SourceError: Another kind of network; weights are missing, damaged, or of other shapes than `config.json` says.
    """
    config = read_config(folder)
    network, missing = _read(folder, config)
    new = {FAMILIES[config.model_type].rename(name) for name in missing}
    if lost := [name for name in new if not name.startswith(HEAD)]:
        raise SourceError(f"{folder}: the weights lack {_some(lost)}; copy the folder again, or name another")
    weights = _renamed(network, config)
    if not torch.equal(weights.pop(HEAD + "decoder.weight"), weights[EMBEDDINGS + "word_embeddings.weight"]):
        log.warning("%s: the MLM head's own matrix is dropped; it is tied to the word embeddings here", folder)
    known = {name: tensor for name, tensor in weights.items() if name not in new}
    with quiet():
        mlm: BertForMaskedLM = BertForMaskedLM.from_pretrained(None, config=bert_config(config), state_dict=known)
    if new:
        log.warning("%s has no %s: these are new, so train them first (--freeze-body)", folder, _some(new))
    if any(name.startswith(TRANSFORM) for name in new):
        near_identity(mlm.cls.predictions.transform)
    return mlm


def random_bert(folder: Path) -> BertForMaskedLM:
    """A BERT of the size that `config.json` says, its weights drawn from torch's generator, its head near the identity.

    Raises:
        SourceError: Another kind of network.
    """
    mlm = BertForMaskedLM(bert_config(read_config(folder)))
    near_identity(mlm.cls.predictions.transform)
    return mlm


@torch.no_grad()
def near_identity(transform: nn.Module) -> None:
    """Start the LPU's transform, `norm(gelu(W h + b))`, as nearly `norm(h)`.

    With W = 1 and b = 3 GELU works where it is nearly linear, and the norm takes the 3 away. So a body without a head
    names the words it sees from the start, half of what the bag of words asks. A new head on a frozen MiniLM, after 100
    steps on masked words: 7.3 nats a masked word, as from random weights; 3.5 a word in sight, 7.3 from random weights.
    """
    dense, norm = transform.get_submodule("dense"), transform.get_submodule("LayerNorm")
    nn.init.eye_(dense.get_parameter("weight"))
    nn.init.constant_(dense.get_parameter("bias"), 3.0)
    nn.init.ones_(norm.get_parameter("weight"))
    nn.init.zeros_(norm.get_parameter("bias"))


@contextmanager
def quiet() -> Iterator[None]:
    """Without the reports and progress bars of `transformers`; what matters of them is an error or in our log."""
    logs = transformers.utils.logging
    verbosity, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(verbosity)
        if bars:
            logs.enable_progress_bar()


def _read(folder: Path, config: PreTrainedConfig) -> tuple[PreTrainedModel, set[str]]:
    """The family's own network, and the names of weights that the folder lacks."""
    try:
        with quiet():
            network, report = AutoModelForMaskedLM.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # refused below, by name
                output_loading_info=True,
            )
    except (SafetensorError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(f"{folder}: its weights cannot be read ({reason}); copy the folder again") from error
    if wrong := [name for name, *_ in report["mismatched_keys"]]:
        raise SourceError(f"{folder}: {_some(wrong)}: other shapes than config.json says; copy the folder again")
    return network, set(report["missing_keys"])


def _renamed(network: PreTrainedModel, config: PreTrainedConfig) -> dict[str, Tensor]:
    """A BERT's weights, of any family."""
    family, bert = FAMILIES[config.model_type], bert_config(config)
    weights = {family.rename(name): tensor for name, tensor in network.state_dict().items()}
    if family.late_positions:
        positions = EMBEDDINGS + "position_embeddings.weight"
        weights[positions] = weights[positions][config.pad_token_id + 1 :].clone()
    no_types = torch.zeros(bert.type_vocab_size, bert.hidden_size)
    weights.setdefault(EMBEDDINGS + "token_type_embeddings.weight", no_types)
    return weights


def _some(names: Iterable[str]) -> str:
    first, *others = sorted(names)
    return first + (f" and {len(others)} more" if others else "")
