"""What an export costs in ranking: the network and its artifact, judged on the same held-out records.

Both rank every passage of a file for each of its queries, with the lengths, prompts and numbers of terms that the
artifact is served with, so that nothing but their vectors can differ. Each query is its own control, which makes the
interval of the difference narrower than those of the two figures. The cost is that of encoding every text twice;
ranking 2,000 passages for 1,000 queries then takes a fifth of a second, and memory is that of the vectors.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from model.dupmae import FusedEncoder
from model.encoder import Encoder, Encoding, EncodingError
from model.estimate import Estimate, estimate
from model.judge import Collection, Vectors, encode, ndcgs, weighed
from model.lines import SourceError
from model.records import Records

MEAN_LOSS = 0.002
"""Of nDCG@10, in the mean over the files."""

FILE_LOSS = 0.005
"""Of nDCG@10, on any one file, if the interval of the difference excludes 0."""


class Change(NamedTuple):
    """nDCG@10 of the fused score, before and after an export.

    Attributes:
        name: Of the file.
        queries: In it.
        passages: All those of the file, which are ranked for each query.
        network: By PyTorch in float32.
        artifact: By the exported graph.
        difference: Artifact less network, with its paired interval.
    """

    name: str
    queries: int
    passages: int
    network: float
    artifact: float
    difference: Estimate

    def line(self) -> str:
        """For people.

        >>> Change("dev", 20, 1000, 0.5, 0.4987, Estimate(mean=-0.0013, low=-0.004, high=0.0012)).line()
        'dev: network 0.5000, artifact 0.4987, change -0.0013 [-0.0040, +0.0012]; 20 queries, 1,000 passages'
        """
        mean, low, high = (
            f"{value:+.4f}" for value in (self.difference.mean, self.difference.low, self.difference.high)
        )
        return (
            f"{self.name}: network {self.network:.4f}, artifact {self.artifact:.4f}, change {mean} [{low}, {high}]; "
            f"{self.queries:,} queries, {self.passages:,} passages"
        )

    def figures(self) -> dict[str, float]:
        """For the evaluation table of the manifest."""
        figures = {
            "queries": self.queries,
            "passages": self.passages,
            "network nDCG@10": self.network,
            "fused nDCG@10": self.artifact,
            "change": self.difference.mean,
            "change low": self.difference.low,
            "change high": self.difference.high,
        }
        return {name: round(float(value), 4) for name, value in figures.items()}


def change(
    encoder: FusedEncoder,
    tokenizer: PreTrainedTokenizerBase,
    exported: Encoder,
    records: Records,
) -> Change:
    """Judge both on the records of a file, without those that ask or answer with no word that the tokenizer knows.

    Args:
        encoder: In evaluation mode, on the CPU.
        tokenizer: The encoder's.
        exported: Its artifact.
        records: The file.

    Raises:
        EncodingError: The artifact has no vector for a text, which is named.
        SourceError: No record is left.
    """
    manifest = exported.artifact.manifest
    collection = Collection.of(records).readable(tokenizer)
    if not collection.queries:
        raise SourceError(
            f"{records.path}: no record has a query and a positive with a word that the tokenizer knows; give another"
        )
    queries = [manifest.query_prompt + query for query in collection.queries]
    passages = [manifest.document_prompt + passage for passage in collection.passages]

    def found(asked: Vectors, held: Vectors) -> NDArray[np.float64]:
        return ndcgs(weighed(asked, held, manifest.rarity_weight), held, collection.right)["fused"]

    before = found(
        encode(encoder, tokenizer, queries, (manifest.max_query_tokens, manifest.k_query)),
        encode(encoder, tokenizer, passages, (manifest.max_document_tokens, manifest.k_document)),
    )
    after = found(
        _exported(exported.encode_queries, collection.queries),
        _exported(exported.encode_documents, collection.passages),
    )
    (difference,) = estimate((after - before)[:, None])
    return Change(records.path.name, len(queries), len(passages), float(before.mean()), float(after.mean()), difference)


def over_budget(changes: Sequence[Change]) -> str | None:
    """What is wrong with them, if anything. A gain is within every budget.

    >>> over_budget([Change("dev", 9, 9, 0.5, 0.499, Estimate(mean=-0.001, low=-0.002, high=-0.0005))])
    >>> over_budget([Change("dev", 9, 9, 0.5, 0.49, Estimate(mean=-0.01, low=-0.02, high=0.001))])
    'nDCG@10 changes by -0.0100 in the mean over dev, budget -0.002'
    """
    mean = float(np.mean([change.difference.mean for change in changes])) if changes else 0.0
    names = ", ".join(change.name for change in changes)
    problems = [
        f"{change.line()}, budget -{FILE_LOSS}"
        for change in changes
        if change.difference.mean < -FILE_LOSS and change.difference.high < 0
    ]
    if mean < -MEAN_LOSS:
        problems.append(f"nDCG@10 changes by {mean:+.4f} in the mean over {names}, budget -{MEAN_LOSS}")
    return "; ".join(problems) or None


def _exported(encode: Callable[[Sequence[str]], list[Encoding]], texts: Sequence[str]) -> Vectors:
    try:
        vectors = [encoding.vector for encoding in encode(texts)]
    except EncodingError as error:
        first = texts[error.positions[0]]
        raise EncodingError(f"{first!r:.60}: {error.reason}", error.positions) from error
    return Vectors(
        torch.from_numpy(np.stack([vector.cls for vector in vectors])),
        pad_sequence([torch.from_numpy(vector.ot_indices) for vector in vectors], batch_first=True),
        pad_sequence([torch.from_numpy(vector.ot_values) for vector in vectors], batch_first=True),
    )
