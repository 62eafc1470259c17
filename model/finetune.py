"""Fine-tuning: contrastive on the fused score, the two parts helped by small losses of their own (section 3.3).

The paper trains the sum as a whole. Each part alone is added with a small factor because otherwise the one that starts
better takes all the gradient, and because `mode=cls` and `mode=ot` are served as well. Distillation is the paper's
third stage: the KL divergence between a teacher's scores and ours over each query's positive and negatives.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from model.candidates import Batches, Candidates, Drawn
from model.checkpoint import Checkpoint
from model.distributed import Ranks
from model.dupmae import DupMAE, FusedEncoder, Sparse
from model.judge import judge
from model.loop import Task, check_length, group, train
from model.options import FinetuneOptions, TrainingError
from model.records import Records


def finetune(
    start: Checkpoint,
    files: Sequence[Records],
    options: FinetuneOptions,
    ranks: Ranks,
    folder: Path,
    *,
    dev: Records | None = None,
) -> Checkpoint:
    """Train a checkpoint's encoder in place and return it with a line added to its history.

    Args:
        start: Where to start.
        files: Training records. A batch comes from one file, so that its passages are like each other.
        options: What to do.
        ranks: This process among others.
        folder: Gets log, plots and the state that an interrupted run goes on from.
        dev: Held-out records to measure nDCG@10 on now and then.

    Raises:
        TrainingError: See `loop.train`; or the batch cannot be divided over ranks; or scores of a teacher are missing.
        SourceError: A file has fewer records than a batch.
    """
    encoder = start.model.encoder
    for name in ("k_query", "k_document"):
        if (k := getattr(options, name)) > encoder.vocabulary_size:
            raise TrainingError(f"{name}={k}, but the vocabulary has {encoder.vocabulary_size} entries")
    for name in ("query_tokens", "document_tokens"):
        check_length(name, getattr(options, name), encoder)

    def measure(step: int) -> dict[str, float] | None:
        due = dev and ranks.is_first and (step % options.dev_every == 0 or step == options.steps)
        return judge(encoder, start.tokenizer, dev, options) if dev and due else None

    task = Task(
        name="finetune",
        network=_Finetuning(encoder, options, ranks),
        groups=_groups(start.model, options),
        parts=Batches(files, start.tokenizer, options, ranks).parts,
        count=lambda parts: torch.tensor([len(parts[0].query_ids), parts[0].tokens], dtype=torch.float32),
        made_by={"data": [file.digest for file in files], "start": list(start.facts.history)},
        measure=measure,
    )
    train(task, options, ranks, folder)
    known = options.model_dump(include={"k_query", "k_document", "query_tokens", "document_tokens"})
    return start._replace(facts=start.facts.after(f"finetune {options.model_dump_json()}", **known))


class Encoded(NamedTuple):
    """`cls` (N, d') and `ot` (N, V) of some texts."""

    cls: Tensor
    ot: Tensor


def scores(queries: Encoded, passages: Encoded) -> tuple[Tensor, Tensor]:
    """The CLS and the OT part of every query's score with every passage, each (B, M) float32."""
    with torch.autocast(queries.cls.device.type, enabled=False):  # 100 in bfloat16 is good to half a nat only
        one, other = ((side.cls.float(), side.ot.float()) for side in (queries, passages))
        return one[0] @ other[0].t(), one[1] @ other[1].t()


def contrast(scores: Tensor, target: Tensor, ignored: Tensor) -> Tensor:
    """Sum over queries of the cross-entropy of (B, M) scores against the right column, without `ignored` ones."""
    return F.cross_entropy(scores.masked_fill(ignored, float("-inf")), target, reduction="sum")


def distill(scores: Tensor, group: Tensor, teacher: Tensor) -> Tensor:
    """Sum over queries of KL(teacher || student) over each query's own passages.

    Args:
        scores: (B, M).
        group: (B, G) int64, columns of a query's positive and negatives; -1 where it has fewer.
        teacher: (B, G), the teacher's scores of them.
    """
    missing = group < 0
    ours = scores.gather(1, group.clamp(min=0)).masked_fill(missing, float("-inf")).log_softmax(1)
    theirs = teacher.masked_fill(missing, float("-inf")).log_softmax(1)
    each = theirs.exp() * (theirs - ours)
    return each.masked_fill(missing, 0).sum()


def flops(ot: Tensor, weight: Tensor) -> Tensor:
    """Sum over the vocabulary of the squared mean activation: the expected cost of a sparse product (SPLADE).

    Args:
        ot: (N, V).
        weight: (N,), 1 for rows that count, 0 for repeated ones.
    """
    return ((weight @ ot) / weight.sum()).square().sum()


class _Finetuning(nn.Module):
    """The losses of a batch of candidates, as the loop calls it."""

    def __init__(self, encoder: FusedEncoder, options: FinetuneOptions, ranks: Ranks) -> None:
        super().__init__()
        self.encoder, self.options, self.ranks = encoder, options, ranks

    def forward(self, drawn: Drawn, counts: Sequence[Tensor]) -> dict[str, Tensor]:
        """Losses and other means over the queries of all ranks, this rank's share of them."""
        options, (queries_in_all,) = self.options, counts
        everyone = Candidates.gathered(drawn, self.ranks)

        # ---- encode this rank's texts, take the other ranks' passages
        query = self._encode(drawn.query_ids, drawn.query_mask, options.k_query)
        own = self._encode(drawn.passage_ids, drawn.passage_mask, options.k_document)
        passage = self._gather(own, everyone.size)  # (M, ..)

        # ---- scores and losses
        cls, ot = scores(self._dense(query), passage)  # (B, M) each
        fused = cls + ot
        columns = everyone.target, everyone.ignored
        terms = {"fused": contrast(fused, *columns), "cls": contrast(cls, *columns), "ot": contrast(ot, *columns)}
        total = options.contrast_weight * (terms["fused"] + options.part_weight * (terms["cls"] + terms["ot"]))
        if options.distill_weight:
            terms["distill"] = distill(fused, everyone.group, drawn.teacher / options.temperature)
            total = total + options.distill_weight * terms["distill"]

        # ---- sparsity, over the texts of all ranks, each of which counts its share of it
        queries = self._gather(query, len(query[0]))
        alike = torch.ones_like(queries.cls[:, 0])
        rise = self._rise(drawn.progress) / self.ranks.size
        sparsity = options.query_sparsity * flops(queries.ot, alike)
        sparsity = (sparsity + options.document_sparsity * flops(passage.ot, everyone.once)) * rise

        # ---- what the log shows
        best = fused.masked_fill(everyone.ignored, float("-inf")).argmax(1)
        terms["accuracy"] = (best == everyone.target).float().sum()
        terms["query_terms"] = (query[1].values > 0).float().sum()
        means = {name: value / queries_in_all for name, value in terms.items()}
        documents = (own[1].values > 0).float().sum(1).mean() / self.ranks.size
        return {"total": total / queries_in_all + sparsity, **means, "document_terms": documents}

    def _encode(self, ids: Tensor, mask: Tensor, k: int) -> tuple[Tensor, Sparse]:
        """`cls` (N, d') and the k strongest terms (N, k); chunks are computed again for their gradient."""
        size = self.options.chunk or len(ids)
        if size >= len(ids):
            encoded: tuple[Tensor, Sparse] = self.encoder(ids, mask, k)
            return encoded
        parts = [
            recomputed(self.encoder, ids[at : at + size], mask[at : at + size], k, use_reentrant=False)
            for at in range(0, len(ids), size)
        ]
        cls, bags = zip(*parts, strict=True)
        return torch.cat(cls), Sparse(*(torch.cat(column) for column in zip(*bags, strict=True)))

    def _gather(self, encoded: tuple[Tensor, Sparse], size: int) -> Encoded:
        """All ranks' rows, `size` of each: this rank's are filled up with rows of zeros."""
        cls, bag = encoded
        rest = size - len(cls)
        cls, indices, values = (F.pad(tensor, (0, 0, 0, rest)) for tensor in (cls, *bag))
        indices = self.ranks.gather(indices)
        return self._dense((self.ranks.gather(cls), Sparse(indices, self.ranks.gather(values))))

    def _dense(self, encoded: tuple[Tensor, Sparse]) -> Encoded:
        cls, bag = encoded
        return Encoded(cls, bag.dense(self.encoder.vocabulary_size))

    def _rise(self, progress: float) -> float:
        """The factor of sparsity: it rises with time squared, so that terms are learned before they are dropped."""
        warmup = self.options.sparsity_warmup
        return min(1.0, progress / warmup) ** 2 if warmup else 1.0


def _groups(model: DupMAE, options: FinetuneOptions) -> list[dict[str, object]]:
    """Body, heads and terms; the [CLS] decoder has no part in fine-tuning."""
    encoder = model.encoder
    body = list(encoder.mlm.bert.parameters())
    terms = list(encoder.terms.parameters())
    taken = {id(p) for p in (*body, *terms)}
    heads = [p for p in encoder.parameters() if id(p) not in taken]
    return [
        {"params": terms, "lr": options.term_learning_rate, "weight_decay": 0.0},
        *group(heads, options.head_learning_rate, options.weight_decay),
        *group(body, options.learning_rate, options.weight_decay),
    ]
