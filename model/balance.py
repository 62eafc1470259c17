"""How loud the words are against the [CLS] vector: one factor, chosen on held-out records after training.

The loss of fine-tuning asks each query's passages to be in order; whether words or meaning count more on text unlike
that of training it does not see. Gains and biases times the root of a factor give every OT score that factor, so the
choice costs one encoding of the held-out texts and no training. Keep records in it that nothing was trained on.

Two things that make words better on text unlike that of training can be chosen here as well, without training again:
the logarithm, so that a word that a passage is full of does not outvote the others; and the rarity of words in the
collection that is searched (`model.rarity`). With rarity the factor is what a nat of it is worth.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from model.checkpoint import Checkpoint
from model.judge import Collection, encode, ndcgs, weighed
from model.options import FinetuneOptions, TrainingError
from model.records import Records

FACTORS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.5)
RARITY_WEIGHTS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.5)

AS_GOOD = 0.001
"""Of nDCG@10 in the mean: what is not worth louder words, which know their subjects, on subjects they do not know."""


def measure(
    checkpoint: Checkpoint, files: Sequence[Records], options: FinetuneOptions, *, rarity: bool = False
) -> Mapping[float, list[float]]:
    """nDCG@10 of the fused score on each file, by factor of the OT part; passages are those of the file.

    Args:
        checkpoint: Its network is put in evaluation mode.
        files: Held-out records.
        options: Lengths, numbers of kept terms, and the precision of products.
        rarity: Whether queries are weighed by the rarity of words among the passages; factors are then its weights.

    Raises:
        TrainingError: As `balanced`.
    """
    _refuse(checkpoint, rarity=rarity)
    encoder, found = checkpoint.model.encoder.eval(), dict[float, list[float]]()
    lengths = (options.query_tokens, options.k_query), (options.document_tokens, options.k_document)
    for file in files:
        texts = Collection.of(file).readable(checkpoint.tokenizer)
        with torch.autocast(encoder.special_ids.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            queries = encode(encoder, checkpoint.tokenizer, texts.queries, lengths[0])
            passages = encode(encoder, checkpoint.tokenizer, texts.passages, lengths[1])
        for factor in RARITY_WEIGHTS if rarity else FACTORS:
            louder = weighed(queries, passages, factor) if rarity else queries._replace(values=queries.values * factor)
            found.setdefault(factor, []).append(float(ndcgs(louder, passages, texts.right)["fused"].mean()))
    return found


def best(found: Mapping[float, Sequence[float]]) -> float:
    """The smallest factor whose mean over files is as good as the best, up to `AS_GOOD`.

    >>> best({0.5: [0.4, 0.5], 1.0: [0.5, 0.5], 1.5: [0.5, 0.501]})
    1.0
    """
    means = {factor: float(np.mean(values)) for factor, values in found.items()}
    return min(factor for factor, mean in means.items() if mean >= max(means.values()) - AS_GOOD)


@torch.no_grad()
def balanced(checkpoint: Checkpoint, factor: float, *, rarity: bool = False) -> Checkpoint:
    """The checkpoint, changed in place, with every OT score times `factor`; with `rarity`, times it for each nat.

    Raises:
        TrainingError: Its activation is log1p, which no factor passes through, or it has a rarity and none is wanted.
    """
    _refuse(checkpoint, rarity=rarity)
    if rarity:
        return checkpoint._replace(facts=checkpoint.facts.after(f"balance by rarity {factor:g}", rarity_weight=factor))
    terms = checkpoint.model.encoder.terms
    terms.gain.mul_(factor**0.5)
    terms.bias.mul_(factor**0.5)
    return checkpoint._replace(facts=checkpoint.facts.after(f"balance {factor:g}"))


@torch.no_grad()
def saturated(checkpoint: Checkpoint, steepness: float) -> Checkpoint:
    """The checkpoint, its weights changed in place, with `log(1 + steepness * weight)` instead of every weight.

    Raises:
        TrainingError: Its activation is not relu.
    """
    if checkpoint.facts.activation != "relu":
        raise TrainingError(f"activation={checkpoint.facts.activation} is not followed by a logarithm; start from relu")
    terms = checkpoint.model.encoder.terms
    terms.gain.mul_(steepness)
    terms.bias.mul_(steepness)
    terms.activation = "log1p"
    return checkpoint._replace(facts=checkpoint.facts.after(f"log1p of {steepness:g}", activation="log1p"))


def _refuse(checkpoint: Checkpoint, *, rarity: bool) -> None:
    if rarity:
        return
    if checkpoint.facts.rarity_weight is not None:
        raise TrainingError("its words count by their rarity; give --rarity to choose what that is worth anew")
    if checkpoint.model.encoder.terms.activation == "log1p":
        raise TrainingError(
            "activation=log1p cannot be balanced by a factor of gains, which is none of scores; give --rarity, export "
            "it as it is, or train with relu"
        )
