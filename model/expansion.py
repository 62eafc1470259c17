"""The expansion vocabulary: the words that a text may be given without holding them.

The LPU weighs every entry of the vocabulary for every text, which is half as much work again as the encoder's for a
document, and more than the encoder's for a query. But most entries are only ever said of texts that hold them: of the
bundled model's 30,522 some 11,000 are 99 in 100 of all the words that it adds to texts. So texts that are like what is
searched are encoded once, what they are given is counted, and afterwards a text gets a weight for each of these entries
and for each word of its own, and none for others. Matching by the words of the text itself is left as it is; what is
lost is the rarest of what the model adds.

The network keeps all its weights, and the vocabulary can be chosen anew, larger too.
"""

from collections.abc import Iterable
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from model.checkpoint import Checkpoint
from model.dupmae import FusedEncoder
from model.judge import encode
from model.options import TrainingError

PART = 1024


def narrowed(checkpoint: Checkpoint, texts: Iterable[str], *, share: float, max_tokens: int, k: int) -> Checkpoint:
    """The checkpoint, changed in place, with the smallest vocabulary that has `share` of what texts are given.

    Args:
        checkpoint: Its network is put in evaluation mode. What expansions it has are chosen anew.
        texts: Like what is searched, and like queries; those without a word that the tokenizer knows are passed over.
        share: Above 0, and at most 1, which keeps whatever any of the texts is given.
        max_tokens: Of a text that are read.
        k: Terms that a text keeps.

    Raises:
        TrainingError: The texts are given no word that they do not hold, or fewer than `k` in all, so that a text's own
            might be crowded out.
    """
    encoder = checkpoint.model.encoder.eval()
    encoder.expansions = None
    counts = given(encoder, checkpoint.tokenizer, texts, max_tokens=max_tokens, k=k)
    if not counts.any():
        raise TrainingError("these texts are given no word that they do not hold; give more of them, or train first")
    words = smallest(counts, share)
    if len(words) < k:
        raise TrainingError(
            f"{len(words)} words are {share:g} of what these texts are given, and a bag may have {k}; "
            "give more texts, or a larger share"
        )
    encoder.expansions = torch.from_numpy(words).to(encoder.special_ids.device)
    run = f"narrow to {len(words):,} of {len(counts):,} words, {share:g} of {counts.sum():,} that texts are given"
    return checkpoint._replace(facts=checkpoint.facts.after(run, expansions=len(words)))


def given(
    encoder: FusedEncoder, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], *, max_tokens: int, k: int
) -> NDArray[np.int64]:
    """How many texts are given each entry without holding it: (V,)."""
    special, counts = set(tokenizer.all_special_ids), torch.zeros(encoder.vocabulary_size, dtype=torch.long)
    left = iter(texts)
    while part := list(islice(left, PART)):
        ids = tokenizer(part, truncation=True, max_length=max_tokens)["input_ids"]
        known = [place for place, own in enumerate(ids) if not special.issuperset(own)]
        bags = encode(encoder, tokenizer, [part[place] for place in known], (max_tokens, k))
        for place, indices, values in zip(known, bags.indices, bags.values, strict=True):
            words = indices[values > 0]
            own = torch.tensor([id for id in ids[place] if id not in special])
            counts[words[~torch.isin(words, own)]] += 1
    return counts.numpy()


def smallest(counts: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """The fewest entries that have `share` of the counts, ascending; of equal ones the lower come first.

    >>> smallest(np.array([5, 0, 90, 5]), 0.94)
    array([0, 2])
    """
    order = np.argsort(-counts, kind="stable")
    reached = np.cumsum(counts[order])
    return np.sort(order[: 1 + int(np.searchsorted(reached, share * reached[-1]))])
