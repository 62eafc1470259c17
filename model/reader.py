"""Texts, or pairs, through a network of `transformers`: cut, sorted by length, batched by tokens, put back in order.

For reading only, as teachers do: no gradients. Tokens are cut before special ones are put around them, each text of a
pair by a limit of its own, which the tokenizers of `transformers` cannot do in one call. So the tokenizer is the one of
`tokenizer.json` itself; `AutoTokenizer` would rebuild it from what other files say.
"""

import json
import pickle
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from tokenizers import Encoding as Tokens
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer

from model.bert import quiet
from model.encoder import batches
from model.lines import SourceError

R = TypeVar("R")
Inputs = dict[str, Tensor]

BATCH_TOKENS = {"cpu": 4096, "cuda": 32768}
"""Padded tokens that go through a network at once."""


class Limits(NamedTuple):
    """Longest query, and longest passage with its special tokens; of a pair, the longest whole."""

    query: int
    passage: int


class Reader:
    """A tokenizer, and what its network wants to be given."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        device: torch.device,
        *,
        pad_id: int,
        types: bool,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
    ) -> None:
        """Take a tokenizer, which is changed: it neither pads nor cuts any more.

        Args:
            tokenizer: Of the network.
            device: Where the network is.
            pad_id: What stands behind a shorter text.
            types: Whether the network is told which text of a pair a token is of.
            precision: Of products; auto is bf16 on a GPU and fp32 elsewhere.
        """
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer, self._device, self._pad_id, self._types = tokenizer, device, pad_id, types
        self._half = precision == "bf16" or (precision == "auto" and device.type == "cuda")

    @classmethod
    def of(
        cls, network: Any, folder: Path, device: torch.device, precision: Literal["auto", "fp32", "bf16"] = "auto"
    ) -> "Reader":
        """The reader of a loaded network, with the tokenizer of its folder.

        Raises:
            SourceError: There is no tokenizer, or one of another network, or nothing to pad with.
        """
        config, tokenizer = network.config, _tokenizer(folder)
        if tokenizer.get_vocab_size() > config.vocab_size:
            raise SourceError(
                f"{folder}: {tokenizer.get_vocab_size()} entries in the tokenizer and {config.vocab_size} in "
                "config.json are not of one model"
            )
        if config.pad_token_id is None:
            raise SourceError(f"{folder / 'config.json'} names no pad_token_id; add the one of the tokenizer")
        types = (getattr(config, "type_vocab_size", None) or 0) > 1
        return cls(tokenizer, device, pad_id=config.pad_token_id, types=types, precision=precision)

    def texts(self, texts: Sequence[str], most: int) -> list[Tokens]:
        """Tokens of texts, each cut to `most` with special tokens."""
        room = most - self._tokenizer.num_special_tokens_to_add(is_pair=False)
        return [self._tokenizer.post_process(text) for text in self._cut(texts, room)]

    def pairs(self, pairs: Sequence[tuple[str, str]], limits: Limits) -> list[Tokens]:
        """Tokens of pairs: the first cut to `limits.query` without special tokens, the second to what is left."""
        room = limits.passage - self._tokenizer.num_special_tokens_to_add(is_pair=True)
        firsts = self._cut([first for first, _ in pairs], limits.query)
        seconds = self._cut([second for _, second in pairs], room)
        for first, second in zip(firsts, seconds, strict=True):
            second.truncate(room - len(first))
        return [self._tokenizer.post_process(*pair) for pair in zip(firsts, seconds, strict=True)]

    def rows(self, tokens: Sequence[Tokens], forward: Callable[[Inputs], Iterable[R]]) -> list[R]:
        """What `forward` makes of a batch, a row for each text, in the order of `tokens`."""
        rows: dict[int, R] = {}
        half = torch.autocast(self._device.type, torch.bfloat16, enabled=self._half)
        with torch.inference_mode(), half:
            for batch in batches([len(text.ids) for text in tokens], BATCH_TOKENS[self._device.type]):
                found = forward(self._inputs([tokens[position] for position in batch]))
                rows |= zip(batch, found, strict=True)
        return [rows[position] for position in range(len(tokens))]

    def _cut(self, texts: Sequence[str], room: int) -> list[Tokens]:
        tokens = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        for text in tokens:
            text.truncate(room)
        return tokens

    def _inputs(self, batch: Sequence[Tokens]) -> Inputs:
        """(B, L) each, padded on the right."""

        def padded(rows: Iterable[list[int]], value: int) -> Tensor:
            tensors = [torch.tensor(row) for row in rows]
            return pad_sequence(tensors, batch_first=True, padding_value=value).to(self._device)

        inputs = {
            "input_ids": padded((text.ids for text in batch), self._pad_id),
            "attention_mask": padded((text.attention_mask for text in batch), 0),
        }
        return {**inputs, "token_type_ids": padded((text.type_ids for text in batch), 0)} if self._types else inputs


def load_network(kind: Any, folder: Path, *, unused: str | None = None) -> Any:
    """A network of `transformers`, in float32 and for inference.

    Args:
        kind: One of its `AutoModel...` classes.
        folder: With configuration and weights.
        unused: How names of weights begin that may be missing.

    Raises:
        SourceError: `transformers` does not know it, or its weights are missing, damaged, or not all there.
    """
    try:
        with quiet():
            network, report = kind.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
            )
    except (SafetensorError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise SourceError(f"{folder}: its weights cannot be read ({error}); copy the folder again") from error
    except ValueError as error:
        raise SourceError(
            f"{folder}: no network that transformers has itself ({str(error).partition(chr(10))[0]}); "
            "code that comes with a model is never run, name another"
        ) from error
    missing = sorted(name for name in report["missing_keys"] if unused is None or not name.startswith(unused))
    if missing:
        raise SourceError(
            f"{folder}: the weights lack {', '.join(missing[:3])}; copy the folder again, or name another"
        )
    return network


def longest(network: nn.Module) -> int | None:
    """Tokens that a network has positions for; None where it can read any number."""
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            late = 0 if module.padding_idx is None else module.padding_idx + 1  # RoBERTa and MPNet count from there
            return module.num_embeddings - late
    return getattr(network.config, "max_position_embeddings", None)


def read_json(path: Path) -> Any:
    """What a file says; nothing where there is none.

    Raises:
        SourceError: It is not JSON.
    """
    try:
        return json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError as error:
        raise SourceError(f"{path} is damaged ({error}); copy the folder again") from error


def _tokenizer(folder: Path) -> Tokenizer:
    if read_json(folder / "tokenizer.json"):
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    if (folder / "vocab.txt").is_file():
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
        return tokenizer
    raise SourceError(f"{folder}: no tokenizer.json; save the tokenizer there with save_pretrained")
