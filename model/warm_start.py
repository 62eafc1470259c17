"""Heads to start fine-tuning from, in closed form over a sample of texts, without gradient steps.

`W_cls`, so that the [CLS] side is a useful vector at a scale where inner products are logits: `fit_projection` by ridge
regression onto the vectors of a model that has some (a mean-pooling sentence encoder; or the same model before its body
moved on), or `spread_projection` by whitening where there is no such model. And `calibrate_terms`: gains and biases, so
that a term counts by how far it stands above its own average and the two parts start at equal strength; or
`weigh_words`, once the head tells the words of a text, so that they count by how rare they are. Or, where the body of a
model with good heads has moved on, `refresh_heads`: both as they were, in terms of the body as it is.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerBase

from model.checkpoint import Checkpoint
from model.dupmae import FusedEncoder
from model.lexicon import Lexicon
from model.lpu import pool

SCALE = 20.0
"""Score of a text with itself on either side: the factor (1 / temperature) sentence encoders train cosines with."""

LOUDEST = 2.0
"""Standard deviation of the scores of unlike texts that a projection may start with: a [CLS] state that does not tell
texts apart yet must not outvote the words."""

ABSENT = 3.0
"""Where a word's weight begins: so many deviations above what it scores in texts that lack it."""

SHY = 3.0
"""How many texts must hold a word until its own mean counts as much as the usual one."""

Vectors = Callable[[Tensor, Tensor], Tensor]
"""input_ids (B, L), attention_mask (B, L) -> (B, D), the vectors to come near to."""


def mean_pooled(encoder: FusedEncoder) -> Vectors:
    """The vectors of a mean-pooling sentence encoder, of length `SCALE ** 0.5`."""

    def vectors(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask[..., None].float()
        mean = (encoder.hidden(input_ids, attention_mask) * mask).sum(1) / mask.sum(1)
        return F.normalize(mean) * math.sqrt(SCALE)

    return vectors


def own_cls(encoder: FusedEncoder) -> Vectors:
    """The [CLS] vectors that a fused encoder has now."""

    def vectors(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return encoder.cls(encoder.hidden(input_ids, attention_mask))

    return vectors


@torch.no_grad()
def fit_projection(checkpoint: Checkpoint, wanted: Vectors, texts: Sequence[str], *, ridge: float = 1e-3) -> float:
    """Set `W_cls` to the ridge solution of `h_cls -> wanted`.

    Args:
        checkpoint: Changed in place.
        wanted: Vectors of `dense_dim` dimensions.
        texts: At least ten times as many as the width.
        ridge: Added to the diagonal of the mean Gram matrix, relative to its mean.

    Raises:
        ValueError: Another width.

    Returns:
        The mean cosine between fitted and wanted vectors over the sample.
    """
    encoder = checkpoint.model.encoder.eval()
    pairs = [(encoder.hidden(*tokens)[:, 0], wanted(*tokens)) for tokens in _tokens(checkpoint.tokenizer, texts)]
    x, y = (torch.cat(column).double() for column in zip(*pairs, strict=True))  # (N, d), (N, d')
    if y.shape[1] != encoder.project.out_features:
        raise ValueError(f"dense_dim is {encoder.project.out_features} and must be the teacher's width, {y.shape[1]}")
    gram = x.t() @ x / len(x)
    gram += torch.eye(len(gram), dtype=gram.dtype) * ridge * gram.diagonal().mean()
    solution = torch.linalg.solve(gram, x.t() @ y / len(x))  # (d, d')
    encoder.project.weight.copy_(solution.t())
    return float(F.cosine_similarity(x @ solution, y).mean())


@torch.no_grad()
def spread_projection(checkpoint: Checkpoint, texts: Sequence[str], *, ridge: float = 1.0) -> None:
    """Set `W_cls` to the strongest principal directions of `h_cls`, each made equally strong (whitening).

    The mean is projected out, or else it would give every pair of texts the same large score. The texts' first dozen
    words are texts of the sample too, so that a query is not unlike everything that was seen.

    Args:
        checkpoint: Changed in place.
        texts: At least ten times as many as the width.
        ridge: Added to each variance, relative to the mean one: directions in which these texts hardly differ stay
            weak, or a text unlike them, such as a query of three words, would get a vector a hundred times too long.
    """
    encoder = checkpoint.model.encoder.eval()
    beginnings = [" ".join(text.split()[:12]) for text in texts]
    states = [encoder.hidden(*tokens)[:, 0] for tokens in _tokens(checkpoint.tokenizer, [*texts, *beginnings])]
    x = torch.cat(states).double()  # (N, d)
    mean = x.mean(0)
    without = torch.eye(len(mean), dtype=x.dtype) - torch.outer(mean, mean) / mean.square().sum()
    centred = (x - mean) @ without
    variances, directions = torch.linalg.eigh(centred.t() @ centred / len(x))
    best = variances.argsort(descending=True)[: encoder.project.out_features]
    weight = (directions[:, best] / (variances[best] + ridge * variances.mean()).sqrt()).t() @ without  # (d', d)
    y = x @ weight.t()  # (N, d')
    some = y[torch.linspace(0, len(y) - 1, min(len(y), 1000)).long()]
    between = (some @ some.t())[~torch.eye(len(some), dtype=torch.bool)]
    factor = min(SCALE / float(y.square().sum(1).mean()), LOUDEST / float(between.std()))
    encoder.project.weight.copy_(weight * factor**0.5)


@torch.no_grad()
def calibrate_terms(checkpoint: Checkpoint, texts: Sequence[str], *, active: int = 128) -> None:
    """Set `terms` to `gain * (mu - mean of mu over the sample - threshold)`.

    The threshold leaves `active` terms a text on average; the gain makes a text's mean self-score `SCALE`.
    """
    encoder, rows = checkpoint.model.encoder.eval(), []
    for tokens in _tokens(checkpoint.tokenizer, texts):
        mu = _mu(encoder, encoder.hidden(*tokens), *tokens)
        rows.append(mu[mu.isfinite().all(1)])  # a text of unknown words only has no maximum
    mu = torch.cat(rows)  # (N, V)
    mean = mu.mean(0)
    above = mu - mean
    threshold = above.topk(active, dim=1).values[:, -1].mean()
    gain = (SCALE / F.relu(above - threshold).square().sum(1).mean()).sqrt()
    encoder.terms.gain.fill_(gain)
    encoder.terms.bias.copy_(-gain * (mean + threshold))


@torch.no_grad()
def weigh_words(checkpoint: Checkpoint, texts: Sequence[str]) -> int:
    """Set `terms` so that a text's bag of words begins as what it says: its own words, as a lexicon weighs them.

    `mu` has one mean for a word that a text holds and another for one that it lacks. Gain and bias make 0 of what lies
    `ABSENT` deviations above the second, or half of the way between the two if that is less; and of the first they make
    the square root of the word's weight, so that two texts score its weight for sharing it, as in BM25. A text holds
    a word if it holds any of its stem, and the others of the stem weigh nothing (see `model.lexicon`). Where a word is
    held too seldom to say, the way between the means is the usual one.

    Args:
        checkpoint: Changed in place; its head must tell words in sight already (see `pretrain`).
        texts: Some thousand passages and queries; nothing is held but sums. Rarity is counted over all of them, means
            over the longer half, since a maximum grows with the number of positions.

    Returns:
        How many entries some text of the longer half held.
    """
    encoder = checkpoint.model.encoder.eval()
    V, median = encoder.vocabulary_size, sorted(map(len, texts))[len(texts) // 2]
    lexicon = Lexicon.counted(checkpoint.tokenizer, texts)
    n, total, squares, held, held_total = 0, *(torch.zeros(V, dtype=torch.double) for _ in range(4))
    for tokens in _tokens(checkpoint.tokenizer, [text for text in texts if len(text) >= median]):
        present, worded = lexicon.counts(tokens[0]) > 0, encoder.ordinary(*tokens).any(1)
        mu, present = (side[worded] for side in (_mu(encoder, encoder.hidden(*tokens), *tokens), present))
        mu = mu.double()
        n, total, squares = n + len(mu), total + mu.sum(0), squares + mu.square().sum(0)
        held, held_total = held + present.sum(0), held_total + (mu * present).sum(0)
    mean, seldom = total / n, held < n / 2
    without = (total - held_total) / (n - held).clamp(min=1)
    usual = ((held_total - held * without)[seldom].sum() / held[seldom].sum()).clamp(min=1e-3)
    without = torch.where(seldom, without, mean - usual * held / n)  # hardly a text lacks the word
    deviation = (squares / n - mean.square()).clamp(min=0).sqrt()
    way = ((held_total - held * without + usual * SHY) / (held + SHY)).clamp(min=usual / 4)
    zero = torch.minimum(ABSENT * deviation, way / 2)
    weight = torch.where(lexicon.word == torch.arange(V), lexicon.weight, 0).double()
    gain = weight.sqrt() / (way - zero)
    gain = gain.clamp(min=gain.median() / 20)  # or words of no weight could never get one
    encoder.terms.gain.copy_(gain)
    encoder.terms.bias.copy_(-gain * (without + zero + usual * (weight == 0)))
    return int((held > 0).sum())


@torch.no_grad()
def refresh_heads(checkpoint: Checkpoint, before: FusedEncoder, texts: Sequence[str], *, ridge: float = 1e-2) -> None:
    """Set `W_cls` and `terms` so that texts have about the vectors again that they had `before` the body moved.

    `W_cls` by ridge regression of the old [CLS] vector on `h_cls`, towards the present weight. Each gain and bias so
    that `gain * mu + bias` has the mean and the deviation that it had: a regression would draw it to its mean, which
    is below zero for most terms, and so leave bags empty.

    Args:
        checkpoint: Changed in place; its heads are those of `before`.
        before: The encoder that it was.
        texts: Queries and passages, some hundreds or more; nothing is held but sums.
        ridge: Relative to mean squares, so that what the texts do not show stays as it is.
    """
    encoder, n, rows = checkpoint.model.encoder.eval(), 0, 0
    old, new = before.terms, encoder.terms
    gram = cross = x = xx = y = yy = torch.zeros((), dtype=torch.double)
    for tokens in _tokens(checkpoint.tokenizer, texts):
        was, now = before.hidden(*tokens), encoder.hidden(*tokens)
        state, lost = now[:, 0].double(), (before.cls(was) - encoder.cls(now)).double()  # (B, d), (B, d')
        n, gram, cross = n + len(state), gram + state.t() @ state, cross + state.t() @ lost
        mu, wanted = _mu(encoder, now, *tokens).double(), old.gain * _mu(before, was, *tokens).double() + old.bias
        mu, wanted = (column[mu.isfinite().all(1)] for column in (mu, wanted))  # (B, V) each
        rows, x, xx = rows + len(mu), x + mu.sum(0), xx + mu.square().sum(0)
        y, yy = y + wanted.sum(0), yy + wanted.square().sum(0)
    gram = gram / n + torch.eye(len(gram)) * ridge * gram.diagonal().mean() / n
    encoder.project.weight.add_(torch.linalg.solve(gram, cross / n).t())
    variance, wanted = xx / rows - (x / rows).square(), yy / rows - (y / rows).square()  # (V,)
    noise = ridge * variance.mean()
    gain = ((wanted + noise * old.gain.square()) / (variance + noise)).sqrt() * old.gain.sign()
    new.gain.copy_(gain)
    new.bias.copy_((y - gain * x) / rows)


def _mu(encoder: FusedEncoder, hidden: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """(B, L, d) -> (B, V), before gains and biases; -inf where a text has no ordinary token."""
    lpu = encoder.lpu
    return pool(lpu.features(hidden), lpu.weight, lpu.bias, encoder.ordinary(input_ids, attention_mask)).values


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Iterator[tuple[Tensor, Tensor]]:
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), 64):
        batch: BatchEncoding = tokenizer(
            ordered[start : start + 64], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        yield batch["input_ids"], batch["attention_mask"]
