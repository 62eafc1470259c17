"""The DupMAE network: the encoder that is kept, the [CLS] decoder that is thrown away, and the pre-training losses.

Source: RetroMAE-2 / DupMAE (ACL 2023; arXiv 2305.02564). Two things are ours. `TermWeights` gives each vocabulary entry
a gain and a bias after the maximum, because the balance of the two parts must be learned faster than the encoder moves
(gain 1 and bias 0 are the paper). And the kept values pass a ReLU, because a sparse index prunes only values >= 0.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertForMaskedLM

from model.lpu import LinearProjectionUnit, Pooled, cross_entropy, kept, max_pool, pool

Activation = Literal["raw", "relu", "log1p"]


class Sparse(NamedTuple):
    """A batch of OT vectors: `indices` (B, K) int64, `values` (B, K) float; a value at or below 0 is padding."""

    indices: Tensor
    values: Tensor

    def dense(self, vocabulary: int) -> Tensor:
        """(B, V), zeros where nothing is kept."""
        zeros = self.values.new_zeros(self.values.shape[0], vocabulary)
        return zeros.scatter(1, self.indices, self.values)


class _Relu(torch.autograd.Function):
    """A ReLU whose gradient lets what is below 0 rise: a word that fell out of every bag could never come back."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.save_for_backward(value)
        return value.relu()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (value,) = ctx.saved_tensors
        return grad.masked_fill((value <= 0) & (grad > 0), 0)


class TermWeights(nn.Module):
    """`activation(gain * mu + bias)`, one gain and one bias a vocabulary entry."""

    def __init__(self, vocabulary: int, activation: Activation = "relu") -> None:
        super().__init__()
        self.activation: Activation = activation
        self.gain = nn.Parameter(torch.ones(vocabulary))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, mu: Tensor, ids: Tensor | None = None) -> Tensor:
        """(B, V), or (B, K) with the `ids` (B, K) of its columns -> the same shape."""
        value: Tensor = self.line(mu, ids)
        if self.activation == "raw":
            return value
        value = _Relu.apply(value)  # type: ignore[no-untyped-call]  # torch has none
        return value if self.activation == "relu" else value.log1p()

    def line(self, mu: Tensor, ids: Tensor | None = None) -> Tensor:
        """`gain * mu + bias`: below 0 for words that are not in the bag, so that the nearest of them are told apart."""
        gain, bias = (self.gain, self.bias) if ids is None else (self.gain[ids], self.bias[ids])
        return gain * mu + bias


class FusedEncoder(nn.Module):
    """What is trained, exported and served: text -> reduced [CLS] vector and bag of words (section 3.3).

    Attributes:
        mlm: A BERT with its MLM head; the head is the LPU.
        project: `W_cls`, d -> d'.
        terms: What turns `mu` into stored values.
        special_ids: (S,) ids that are not ordinary tokens; they never enter the maximum. [MASK] is among them: the
            paper leaves masked positions out of the pool (the released code does not).
        expansions: (E,) int64, ascending: the words that a text may be given without holding them, see `expansion`.
            None is the paper: any word.
    """

    special_ids: Tensor
    expansions: Tensor | None

    def __init__(
        self,
        mlm: BertForMaskedLM,
        *,
        dense_dim: int,
        special_ids: list[int],
        activation: Activation = "relu",
        expansions: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.mlm = mlm
        self.project = nn.Linear(mlm.config.hidden_size, dense_dim, bias=False)
        self.terms = TermWeights(mlm.config.vocab_size, activation)
        self.register_buffer("special_ids", torch.tensor(special_ids), persistent=False)
        self.register_buffer("expansions", expansions, persistent=False)

    @property
    def vocabulary_size(self) -> int:
        """V."""
        return self.terms.gain.numel()

    @property
    def lpu(self) -> LinearProjectionUnit:
        """The MLM head of `mlm`."""
        head = self.mlm.cls.predictions
        return LinearProjectionUnit(head.transform, head.decoder)

    def hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L), (B, L) -> (B, L, d), the last hidden states."""
        hidden: Tensor = self.mlm.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden

    def ordinary(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L) bool: the positions that hold ordinary tokens."""
        return attention_mask.bool() & ~torch.isin(input_ids, self.special_ids)

    def cls(self, hidden: Tensor) -> Tensor:
        """(B, L, d) -> (B, d')."""
        reduced: Tensor = self.project(hidden[:, 0])
        return reduced

    @torch.no_grad()
    def unsayable(self, input_ids: Tensor, keep: Tensor) -> Tensor:
        """(B, L), (B, L) -> (B, V) bool: the words that each text may not be given: neither expansions nor its own."""
        assert self.expansions is not None
        others = keep.new_ones(len(keep), self.vocabulary_size)
        others[:, self.expansions] = False
        return others.scatter_(1, torch.where(keep, input_ids, self.expansions[0]), False)

    def bag(self, hidden: Tensor, input_ids: Tensor, keep: Tensor, k: int) -> Sparse:
        """The top-k of the bag of words; 0 where no word is. With expansions, k is at most their number.

        A gradient reaches the kept entries only: exact for those above 0, and for the nearest below it where k reaches
        that far, if it makes them rise (see `_Relu`).
        """
        lpu, features = self.lpu, self.lpu.features(hidden)
        pooled: Pooled = pool(features, lpu.weight, lpu.bias, keep)
        line = self.terms.line(pooled.values)
        if self.expansions is not None:
            k = min(k, len(self.expansions))
            line = line.masked_fill(self.unsayable(input_ids, keep), float("-inf"))
        ids = line.topk(k, dim=1).indices.detach()
        mu = kept(features, lpu.weight, lpu.bias, pooled.positions.gather(1, ids), ids)
        wordless = ~keep.any(1, keepdim=True)  # its values would be those of [CLS]
        return Sparse(ids, self.terms(mu, ids).masked_fill(wordless, 0))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, k: int) -> tuple[Tensor, Sparse]:
        """(B, L), (B, L) -> `cls` (B, d') and the `k` strongest terms (B, k)."""
        hidden = self.hidden(input_ids, attention_mask)
        return self.cls(hidden), self.bag(hidden, input_ids, self.ordinary(input_ids, attention_mask), k)


class ClsDecoder(nn.Module):
    """Enhanced decoding (section 3.1): one transformer layer that rebuilds the text from `h_cls` alone.

    Query stream `H1 = h_cls + p_i`; key and value stream `H2 = [h_cls, e_1 + p_1, ...]` over the unmasked text; each
    row sees its own sample of H2, never itself. Needs `visible` from `masking.visible_context`.
    """

    def __init__(self, d: int, heads: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(d, d) for _ in range(4))
        self.inner, self.outer = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.attention_norm, self.output_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, h_cls: Tensor, embeddings: Tensor, positions: Tensor, visible: Tensor, *, norm: nn.Module | None = None
    ) -> Tensor:
        """Rebuild every position.

        Args:
            h_cls: (B, d).
            embeddings: (B, L, d), word embeddings of the unmasked text.
            positions: (L, d), position embeddings.
            visible: (B, L, L) bool, row i sees column j.
            norm: Applied to what it reads but `h_cls` as context; None is the paper.

        Returns:
            (B, L, d).
        """
        h1, context = h_cls[:, None] + positions, embeddings[:, 1:] + positions[1:]  # (B, L, d), (B, L - 1, d)
        if norm is not None:
            h1, context = norm(h1), norm(context)
        h2 = torch.cat([h_cls[:, None], context], dim=1)  # (B, L, d)
        q, k, v = (self._split(layer(x)) for layer, x in ((self.query, h1), (self.key, h2), (self.value, h2)))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None])  # (B, H, L, d / H)
        attended = self.attention_norm(h1 + self.dropout(self.out(seen.transpose(1, 2).flatten(2))))
        output: Tensor = self.output_norm(attended + self.dropout(self.outer(F.gelu(self.inner(attended)))))
        return output

    def _split(self, x: Tensor) -> Tensor:
        split: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, L, d / H)
        return split


class Batch(NamedTuple):
    """One pre-training batch, or a part of one, made by `masking.Masker.batch`.

    Attributes:
        input_ids: (B, L) int64, the original text with [CLS], [SEP] and padding.
        attention_mask: (B, L) int64.
        masked_ids: (B, L) int64, the encoder's input.
        masked_at: (N,) int64, the masked positions in the flattened (B * L).
        ordinary_at: (M,) int64, those that hold ordinary tokens.
        visible: (B, L, L) bool, the [CLS] decoder's attention.
    """

    input_ids: Tensor
    attention_mask: Tensor
    masked_ids: Tensor
    masked_at: Tensor
    ordinary_at: Tensor
    visible: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


class Counts(NamedTuple):
    """What the losses of a step are divided by: the predictions in all its parts and on all ranks, each a scalar."""

    masked: Tensor
    ordinary: Tensor
    texts: Tensor

    @classmethod
    def of(cls, *parts: Batch) -> "Counts":
        """The counts of these parts together.

        >>> part = Batch(*(torch.zeros(2, 3, dtype=torch.long),) * 3, torch.arange(3), torch.arange(4), torch.zeros(()))
        >>> [count.item() for count in Counts.of(part, part)]
        [6.0, 8.0, 4.0]
        """
        each = ((len(part.masked_at), len(part.ordinary_at), len(part.input_ids)) for part in parts)
        return cls(*torch.tensor([*each], dtype=torch.float32).sum(0))


@dataclass(frozen=True)
class Objective:
    """Which losses there are, and how each is made. Defaults: the paper; the other choices: its released code.

    Attributes:
        mlm: Factor of the encoder's masked-language loss; a term whose factor is 0 is not computed.
        cls: Factor of the [CLS] decoder's.
        bow: Factor of the bag of words' (released code: 0.1).
        bow_target: Each word of the text's set weighs 1 (`set`), or 1 / the text's number of tokens (`mean`).
        bow_pool: The maximum is over `unmasked` ordinary tokens, or over `all` positions but the first.
        decoder_input: The [CLS] decoder reads the `sum` of state or embedding and position, or that sum `normed` by the
            encoder's embedding norm.
    """

    mlm: float = 1.0
    cls: float = 1.0
    bow: float = 1.0
    bow_target: Literal["set", "mean"] = "set"
    bow_pool: Literal["unmasked", "all"] = "unmasked"
    decoder_input: Literal["sum", "normed"] = "sum"


class DupMAE(nn.Module):
    """Encoder, [CLS] decoder and bag-of-words decoder with the pre-training loss (equation 9).

    RetroMAE is the same network with `bow=0`, plain masked-language training with `cls=0` too.
    """

    def __init__(self, encoder: FusedEncoder) -> None:
        super().__init__()
        config = encoder.mlm.config
        self.encoder = encoder
        self.decoder = ClsDecoder(config.hidden_size, config.num_attention_heads, dropout=config.hidden_dropout_prob)

    def forward(self, batch: Batch, objective: Objective, counts: Counts) -> dict[str, Tensor]:
        """The losses of one part of a step, which add up over parts and ranks to the step's.

        Returns:
            `total`, the weighted sum to learn from, and each term unweighted: `mlm` and `cls` in nats a prediction,
            `bow` in nats a text.
        """
        hidden = self.encoder.hidden(batch.masked_ids, batch.attention_mask)  # (B, L, d)
        features = self.encoder.lpu.features(hidden)  # (B, L, d)
        terms: dict[str, Tensor] = {}
        if objective.mlm:
            terms["mlm"] = self._mlm(features, batch) / counts.masked.clamp(min=1)
        if objective.cls:
            terms["cls"] = self._cls(hidden[:, 0], batch, objective) / counts.ordinary.clamp(min=1)
        if objective.bow:
            terms["bow"] = self._bow(features, batch, objective) / counts.texts.clamp(min=1)
        factors = {"mlm": objective.mlm, "cls": objective.cls, "bow": objective.bow}
        return {"total": torch.stack([factors[name] * term for name, term in terms.items()]).sum(), **terms}

    def _mlm(self, features: Tensor, batch: Batch) -> Tensor:
        lpu, at = self.encoder.lpu, batch.masked_at
        targets = batch.input_ids.flatten()[at]
        return cross_entropy(features.flatten(end_dim=1)[at], lpu.weight, lpu.bias, targets)

    def _cls(self, h_cls: Tensor, batch: Batch, objective: Objective) -> Tensor:
        lpu, bert, at = self.encoder.lpu, self.encoder.mlm.bert.embeddings, batch.ordinary_at
        L = batch.input_ids.shape[1]
        words = bert.word_embeddings(batch.input_ids)  # (B, L, d)
        places = bert.position_embeddings.weight[:L]  # (L, d)
        norm = None
        if objective.decoder_input == "normed":  # what BERT makes of an embedding, type 0 included
            places, norm = places + bert.token_type_embeddings.weight[0], bert.LayerNorm
        rebuilt = self.decoder(h_cls, words, places, batch.visible, norm=norm)  # (B, L, d)
        features = lpu.features(rebuilt.flatten(end_dim=1)[at])  # (M, d): every token but the special ones
        return cross_entropy(features, lpu.weight, lpu.bias, batch.input_ids.flatten()[at])

    def _bow(self, features: Tensor, batch: Batch, objective: Objective) -> Tensor:
        lpu, encoder = self.encoder.lpu, self.encoder
        ordinary = encoder.ordinary(batch.input_ids, batch.attention_mask)  # (B, L)
        if objective.bow_pool == "all":
            keep = batch.attention_mask.bool().index_fill(1, batch.masked_at.new_zeros(1), False)
        else:
            keep = ordinary.flatten().index_fill(0, batch.masked_at, False).view_as(ordinary)
        mu = max_pool(features, lpu.weight, lpu.bias, keep)  # (B, V)
        return bow_loss(mu, batch.input_ids, ordinary, mean=objective.bow_target == "mean")


def bow_loss(mu: Tensor, input_ids: Tensor, ordinary: Tensor, *, mean: bool = False) -> Tensor:
    """Bag-of-words loss (equation 8): `-sum over the set of the text's tokens of log softmax(mu)`, summed over texts.

    Args:
        mu: (B, V).
        input_ids: (B, L), the unmasked text.
        ordinary: (B, L) bool, the tokens that count; a repeated one counts once.
        mean: Divide each text's loss by its number of tokens, as the released code does.
    """
    present = torch.zeros_like(mu).scatter_reduce(1, input_ids, ordinary.to(mu.dtype), reduce="amax")  # (B, V)
    if mean:
        present = present / ordinary.sum(1, keepdim=True).clamp(min=1)
    return -(mu.log_softmax(-1) * present).sum()
