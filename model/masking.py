"""What each decoder may see: whole words masked for the encoder, a sample a row for the [CLS] decoder."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from transformers import PreTrainedTokenizerBase

from model.dupmae import Batch


class Masker:
    """Turns token ids into pre-training batches.

    Args:
        tokenizer: A WordPiece tokenizer; a token that starts with `##` continues a word.
        encoder_rate: Share of ordinary tokens the encoder does not see (paper: 0.3).
        decoder_rate: Share of the context that each row of the [CLS] decoder does not see (paper: 0.5).
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, encoder_rate: float = 0.3, decoder_rate: float = 0.5
    ) -> None:
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        self.continues = torch.tensor([token.startswith("##") for token in tokens])
        self.special = torch.tensor(tokenizer.all_special_ids)
        self.pad_id, self.mask_id = int(tokenizer.pad_token_id), int(tokenizer.mask_token_id)
        self.encoder_rate, self.decoder_rate = encoder_rate, decoder_rate

    def batch(self, sequences: Sequence[Sequence[int]], generator: Generator) -> Batch:
        """Sequences with [CLS] and [SEP] in place -> one padded batch; the same generator state, the same batch."""
        L = max(map(len, sequences))
        input_ids = torch.tensor([[*ids, *[self.pad_id] * (L - len(ids))] for ids in sequences])
        attention_mask = torch.tensor([[1] * len(ids) + [0] * (L - len(ids)) for ids in sequences])
        masked = self.whole_words(input_ids, generator)
        return Batch(
            input_ids,
            attention_mask,
            self.replace(input_ids, masked, generator),
            input_ids.masked_fill(~masked, -100),
            visible_context(attention_mask, self.decoder_rate, generator),
        )

    def whole_words(self, input_ids: Tensor, generator: Generator) -> Tensor:
        """(B, L) bool: whole words in random order, one at least, up to `encoder_rate` of each row's ordinary tokens.

        One word at least stays in sight, so that the bag of words is never pooled over nothing.
        """
        B, L = input_ids.shape
        ordinary = ~torch.isin(input_ids, self.special)
        word = (ordinary & ~self.continues[input_ids]).cumsum(1).masked_fill(~ordinary, 0)  # (B, L), 0: no word
        order = torch.rand(B, L + 1, generator=generator).index_fill_(1, torch.tensor([0]), 2.0)  # a key each word
        keys = order.gather(1, word)
        rank = keys.argsort(dim=1, stable=True).argsort(dim=1)  # tokens of one word stand together
        last = torch.zeros(B, L + 1, dtype=torch.long).scatter_reduce(1, word, rank, reduce="amax").gather(1, word)
        budget = (ordinary.sum(1, keepdim=True) * self.encoder_rate).round()
        first_word = keys == keys.amin(1, keepdim=True)
        several = word.amax(1, keepdim=True) > 1
        return ordinary & ((last < budget) | (first_word & several))

    def replace(self, input_ids: Tensor, masked: Tensor, generator: Generator) -> Tensor:
        """BERT's rule for masked positions: 80 % become [MASK], 10 % a random token, 10 % stay."""
        draw = torch.rand(input_ids.shape, generator=generator)
        random_ids = torch.randint(len(self.continues), input_ids.shape, generator=generator)
        replaced = input_ids.masked_fill(masked & (draw < 0.8), self.mask_id)
        return torch.where(masked & (draw >= 0.9), random_ids, replaced)


def visible_context(attention_mask: Tensor, decoder_rate: float, generator: Generator) -> Tensor:
    """The [CLS] decoder's attention: each row its own sample (equation 4 of RetroMAE).

    Row i sees column 0 ([CLS]) always, column i never, and each other real token with probability `1 - decoder_rate`.
    Without a sample a row, or with sight of itself, the task is copied instead of solved. Row 0 predicts nothing.

    Returns:
        (B, L, L) bool.
    """
    B, L = attention_mask.shape
    visible = torch.rand(B, L, L, generator=generator) >= decoder_rate
    visible &= attention_mask.bool()[:, None, :]
    visible &= ~torch.eye(L, dtype=torch.bool)
    visible[:, :, 0] = True
    return visible
