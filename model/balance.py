"""How loud the words are against the [CLS] vector: one factor, chosen on held-out records after training.

The loss of fine-tuning asks each query's passages to be in order; whether words or meaning count more on text unlike
that of training it does not see. Gains and biases times the root of a factor give every OT score that factor, so the
choice costs one encoding of the held-out texts and no training. Keep records in it that nothing was trained on.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from model.checkpoint import Checkpoint
from model.judge import Collection, Vectors, encode, ndcgs
from model.options import FinetuneOptions, TrainingError
from model.records import Records

FACTORS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.5)


def measure(checkpoint: Checkpoint, files: Sequence[Records], options: FinetuneOptions) -> Mapping[float, list[float]]:
    """nDCG@10 of the fused score on each file, by factor of the OT part; passages are those of the file.

    Args:
        checkpoint: Its network is put in evaluation mode.
        files: Held-out records.
        options: Lengths, numbers of kept terms, and the precision of products.

    Raises:
        TrainingError: Its activation is log1p, which no factor passes through.
    """
    _refuse_log1p(checkpoint)
    encoder, found = checkpoint.model.encoder.eval(), dict[float, list[float]]()
    lengths = (options.query_tokens, options.k_query), (options.document_tokens, options.k_document)
    for file in files:
        texts = Collection.of(file).readable(checkpoint.tokenizer)
        with torch.autocast(encoder.special_ids.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            queries = encode(encoder, checkpoint.tokenizer, texts.queries, lengths[0])
            passages = encode(encoder, checkpoint.tokenizer, texts.passages, lengths[1])
        for factor in FACTORS:
            louder = Vectors(queries.cls, queries.indices, queries.values * factor)
            found.setdefault(factor, []).append(float(ndcgs(louder, passages, texts.right)["fused"].mean()))
    return found


def best(found: Mapping[float, Sequence[float]]) -> float:
    """The factor with the best mean over files; of equals, the one nearest to 1.

    >>> best({0.5: [0.4, 0.6], 1.0: [0.5, 0.5], 1.5: [0.4, 0.5]})
    1.0
    """
    return max(found, key=lambda factor: (round(float(np.mean(found[factor])), 6), -abs(np.log(factor))))


@torch.no_grad()
def balanced(checkpoint: Checkpoint, factor: float) -> Checkpoint:
    """The checkpoint, changed in place, with every OT score times `factor`.

    Raises:
        TrainingError: Its activation is log1p, which no factor passes through.
    """
    _refuse_log1p(checkpoint)
    terms = checkpoint.model.encoder.terms
    terms.gain.mul_(factor**0.5)
    terms.bias.mul_(factor**0.5)
    return checkpoint._replace(facts=checkpoint.facts.after(f"balance {factor:g}"))


def _refuse_log1p(checkpoint: Checkpoint) -> None:
    if checkpoint.model.encoder.terms.activation == "log1p":
        raise TrainingError(
            "activation=log1p cannot be balanced afterwards, since a factor of gains is none of scores; export it "
            "as it is, or train with relu"
        )
