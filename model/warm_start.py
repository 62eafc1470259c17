"""Give a body that was trained as a mean-pooling sentence encoder the heads of a fused one, without gradient steps.

Two closed forms over a sample of texts. `fit_projection`: `W_cls` by ridge regression, so that the [CLS] side starts as
the sentence vector the body already knows, at a scale where inner products are useful logits. `calibrate_terms`: gains
and biases, so that a term counts by how far it stands above its own average and the two parts start at equal strength.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerBase

from model.checkpoint import Checkpoint
from model.lpu import pool

SCALE = 20.0
"""Score of a text with itself on either side: the factor (1 / temperature) sentence encoders train cosines with."""


@torch.no_grad()
def fit_projection(checkpoint: Checkpoint, teacher: Checkpoint, texts: Sequence[str], *, ridge: float = 1e-3) -> float:
    """Set `W_cls` to the ridge solution of `h_cls -> sqrt(SCALE) * unit(mean of the teacher's hidden states)`.

    Args:
        checkpoint: Changed in place; its `dense_dim` must be the teacher's width.
        teacher: The sentence encoder.
        texts: At least ten times as many as the width.
        ridge: Added to the diagonal of the mean Gram matrix, relative to its mean.

    Raises:
        ValueError: Another width.

    Returns:
        The mean cosine between fitted and wanted vectors over the sample.
    """
    encoder, inputs, wanted = checkpoint.model.encoder, [], []
    width = teacher.model.encoder.mlm.config.hidden_size
    if encoder.project.out_features != width:
        raise ValueError(f"dense_dim is {encoder.project.out_features} and must be the teacher's width, {width}")
    for tokens in _tokens(checkpoint.tokenizer, texts):
        inputs.append(encoder.hidden(tokens["input_ids"], tokens["attention_mask"])[:, 0])
        states = teacher.model.encoder.hidden(tokens["input_ids"], tokens["attention_mask"])
        mask = tokens["attention_mask"][..., None].float()
        wanted.append(F.normalize((states * mask).sum(1) / mask.sum(1)) * SCALE**0.5)
    x, y = torch.cat(inputs).double(), torch.cat(wanted).double()  # (N, d), (N, d')
    gram = x.t() @ x / len(x)
    gram += torch.eye(len(gram), dtype=gram.dtype) * ridge * gram.diagonal().mean()
    solution = torch.linalg.solve(gram, x.t() @ y / len(x))  # (d, d')
    encoder.project.weight.copy_(solution.t())
    return float(F.cosine_similarity(x @ solution, y).mean())


@torch.no_grad()
def calibrate_terms(checkpoint: Checkpoint, texts: Sequence[str], *, active: int = 128) -> None:
    """Set `terms` to `gain * (mu - mean of mu over the sample - threshold)`.

    The threshold leaves `active` terms a text on average; the gain makes a text's mean self-score `SCALE`.
    """
    encoder, rows = checkpoint.model.encoder, []
    for tokens in _tokens(checkpoint.tokenizer, texts):
        features = encoder.lpu.features(encoder.hidden(tokens["input_ids"], tokens["attention_mask"]))
        keep = encoder.ordinary(tokens["input_ids"], tokens["attention_mask"])
        mu = pool(features, encoder.lpu.weight, encoder.lpu.bias, keep).values
        rows.append(mu[keep.any(1)])  # a text of unknown words only has no maximum
    mu = torch.cat(rows)  # (N, V)
    mean = mu.mean(0)
    above = mu - mean
    threshold = above.topk(active, dim=1).values[:, -1].mean()
    gain = (SCALE / F.relu(above - threshold).square().sum(1).mean()).sqrt()
    encoder.terms.gain.fill_(gain)
    encoder.terms.bias.copy_(-gain * (mean + threshold))


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), 64):
        batch: BatchEncoding = tokenizer(
            ordered[start : start + 64], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        yield batch.data
