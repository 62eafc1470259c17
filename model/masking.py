"""What each decoder may see: whole words masked for the encoder, a sample a row for the [CLS] decoder.

Every random draw belongs to one text and its seed, so a batch is the same in one part or several, on one rank or eight.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from model.dupmae import Batch

Corruption = Literal["mask", "bert"]
Unit = Literal["token", "word"]


class Draws(NamedTuple):
    """Uniform numbers of a batch.

    Attributes:
        word: (B, L + 1), a sort key a word; column 0 belongs to no word.
        replace: (B, L), for what stands at a masked position.
        token: (B, L), for a random token there.
        context: (B, L, L + 1), for what row i of the [CLS] decoder sees: a token, or a word by its number.
    """

    word: Tensor
    replace: Tensor
    token: Tensor
    context: Tensor


class Masker:
    """Turns token ids into pre-training batches.

    Args:
        tokenizer: Its tokens say where words begin: `##` continues one (WordPiece), `Ġ` or `▁` begins one (others).
        encoder_rate: Share of ordinary tokens the encoder does not see (paper: 0.3).
        decoder_rate: Share of the context that each row of the [CLS] decoder does not see (paper: 0.5).
        corruption: What the encoder sees at a masked position: `mask` is [MASK] (paper); `bert` is [MASK] for 80 %, a
            random token for 10 % and the token itself for 10 % (released code).
        unit: What a row of the decoder misses: a `token` (paper), or a whole `word` (released code).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        encoder_rate: float = 0.3,
        decoder_rate: float = 0.5,
        corruption: Corruption = "mask",
        unit: Unit = "token",
    ) -> None:
        self.continues = continuations(tokenizer)
        self.special = torch.tensor(tokenizer.all_special_ids)
        self.pad_id, self.mask_id = int(tokenizer.pad_token_id), int(tokenizer.mask_token_id)
        self.encoder_rate, self.decoder_rate = encoder_rate, decoder_rate
        self.corruption, self.unit = corruption, unit

    def batch(self, sequences: Sequence[Sequence[int]], seeds: Sequence[int]) -> Batch:
        """Sequences with [CLS] and [SEP] in place, and a seed for each -> one padded batch."""
        rows = [torch.tensor(ids) for ids in sequences]
        input_ids = pad_sequence(rows, batch_first=True, padding_value=self.pad_id)
        attention_mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        draws = _draw([len(ids) for ids in sequences], seeds)
        ordinary = ~torch.isin(input_ids, self.special)
        words = self.words(input_ids)
        masked = self.whole_words(words, draws.word)
        return Batch(
            input_ids,
            attention_mask,
            self.corrupt(input_ids, masked, draws),
            masked.flatten().nonzero().squeeze(1),
            ordinary.flatten().nonzero().squeeze(1),
            visible_context(attention_mask, self._context(words, draws.context), self.decoder_rate),
        )

    def words(self, input_ids: Tensor) -> Tensor:
        """(B, L) -> (B, L) int64, the number of each token's word from 1 on; 0 for special tokens."""
        ordinary = ~torch.isin(input_ids, self.special)
        return begins(ordinary, self.continues[input_ids]).cumsum(1).masked_fill(~ordinary, 0)

    def whole_words(self, words: Tensor, draws: Tensor) -> Tensor:
        """(B, L) bool: whole words in random order, one at least, up to `encoder_rate` of each row's ordinary tokens.

        One word at least stays in sight, so that the bag of words is never pooled over nothing.
        """
        B, L = words.shape
        ordinary = words > 0
        keys = draws.index_fill(1, torch.tensor([0]), 2.0).gather(1, words)  # special tokens come last
        rank = keys.argsort(dim=1, stable=True).argsort(dim=1)  # tokens of one word stand together
        last = torch.zeros(B, L + 1, dtype=torch.long).scatter_reduce(1, words, rank, reduce="amax").gather(1, words)
        tokens = ordinary.sum(1, keepdim=True)
        budget = (tokens * self.encoder_rate).round().clamp(max=tokens - 1)
        first_word = keys == keys.amin(1, keepdim=True)
        several = words.amax(1, keepdim=True) > 1
        return ordinary & ((last < budget) | (first_word & several))

    def corrupt(self, input_ids: Tensor, masked: Tensor, draws: Draws) -> Tensor:
        """The encoder's input: (B, L) ids with something else at masked positions."""
        if self.corruption == "mask":
            return input_ids.masked_fill(masked, self.mask_id)
        random_ids = (draws.token * len(self.continues)).long()
        replaced = input_ids.masked_fill(masked & (draws.replace < 0.8), self.mask_id)
        return torch.where(masked & (draws.replace >= 0.9), random_ids, replaced)

    def _context(self, words: Tensor, draws: Tensor) -> Tensor:
        """(B, L, L): the draw that decides whether row i sees column j."""
        if self.unit == "token":
            return draws[:, :, 1:]
        shared = draws.gather(2, words[:, None].expand(-1, words.shape[1], -1))  # one draw for each word
        return shared.masked_fill((words == 0)[:, None], 1.0)  # [SEP] is in sight


def begins(ordinary: Tensor, continues: Tensor) -> Tensor:
    """(B, L) bool, (B, L) bool -> (B, L) bool: tokens that are the first of a word; after a special one, each is."""
    after_special = torch.cat([torch.ones_like(ordinary[:, :1]), ~ordinary[:, :-1]], dim=1)
    return ordinary & (~continues | after_special)


def visible_context(attention_mask: Tensor, draws: Tensor, decoder_rate: float) -> Tensor:
    """The [CLS] decoder's attention: each row its own sample (equation 4 of RetroMAE).

    Row i sees column 0 ([CLS]) always, column i never, and each other real token with probability `1 - decoder_rate`.
    Without a sample a row, or with sight of itself, the task is copied instead of solved. Row 0 predicts nothing.

    Args:
        attention_mask: (B, L).
        draws: (B, L, L), uniform in [0, 1).
        decoder_rate: Share that is not seen.

    Returns:
        (B, L, L) bool.
    """
    visible = (draws >= decoder_rate) & attention_mask.bool()[:, None, :]
    visible &= ~torch.eye(attention_mask.shape[1], dtype=torch.bool)
    visible[:, :, 0] = True
    return visible


def _draw(lengths: Sequence[int], seeds: Sequence[int]) -> Draws:
    B, L = len(lengths), max(lengths)
    draws = Draws(torch.zeros(B, L + 1), torch.zeros(B, L), torch.zeros(B, L), torch.zeros(B, L, L + 1))
    for row, (n, seed) in enumerate(zip(lengths, seeds, strict=True)):
        generator = Generator().manual_seed(seed)
        draws.word[row, : n + 1] = torch.rand(n + 1, generator=generator)
        draws.replace[row, :n] = torch.rand(n, generator=generator)
        draws.token[row, :n] = torch.rand(n, generator=generator)
        draws.context[row, :n, : n + 1] = torch.rand(n, n + 1, generator=generator)
    return draws


def continuations(tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """(V,) bool: the tokens that go on with the word before them."""
    tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))]
    for mark in ("Ġ", "▁"):
        if sum(token.startswith(mark) for token in tokens) > len(tokens) / 10:
            return torch.tensor([not token.startswith(mark) for token in tokens])
    return torch.tensor([token.startswith("##") for token in tokens])
