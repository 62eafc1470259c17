"""Fine-tuning: contrastive on the fused score, the two parts helped by small losses of their own (section 3.3).

The paper trains the sum as a whole. Each part alone is added with a small factor because otherwise the one that starts
better takes all the gradient, and because `mode=cls` and `mode=ot` are served as well. Distillation is the paper's
third stage: the KL divergence between a teacher's scores and ours over each query's positive and negatives. Teaching is
ours: the same over all passages of the batch, from two systems at once, of which each teaches one side.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from model.candidates import Batches, Candidates, Drawn
from model.checkpoint import Checkpoint
from model.distributed import Ranks
from model.dupmae import DupMAE, FusedEncoder, Sparse
from model.judge import encode, judge, rarity_in
from model.lexicon import Lexicon
from model.loop import Task, check_length, group, train
from model.options import FinetuneOptions, TrainingError
from model.records import Records
from model.teaching import COSINE_SCALE, Teaching

RARITY_PASSAGES = 1024
"""In which words are counted, of the training records."""


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
        SourceError: A file has fewer records than a batch, or no teaching that the options ask for.
    """
    encoder = start.model.encoder
    taught = [Teaching.of(file) for file in files] if options.teach_weight or options.align_weight else []
    for name in ("k_query", "k_document"):
        if (k := getattr(options, name)) > encoder.vocabulary_size:
            raise TrainingError(f"{name}={k}, but the vocabulary has {encoder.vocabulary_size} entries")
    for name in ("query_tokens", "document_tokens"):
        check_length(name, getattr(options, name), encoder)
    if options.align_weight and (widths := {one.width for one in taught}) != {encoder.project.out_features}:
        raise TrainingError(
            f"align_weight={options.align_weight}, but [CLS] vectors have {encoder.project.out_features} dimensions "
            f"and those of the teaching {sorted(widths)}; give START that --dense-dim, or teach by another encoder"
        )

    lexicon = Lexicon.of(start.tokenizer, files).to(ranks.device) if options.words_weight else None

    def measure(step: int) -> dict[str, float] | None:
        due = dev and ranks.is_first and (step % options.dev_every == 0 or step == options.steps)
        return judge(encoder, start.tokenizer, dev, options, start.facts.rarity_weight) if dev and due else None

    task = Task(
        name="finetune",
        network=_Finetuning(encoder, options, ranks, taught, lexicon, _rarity(start, files, options)),
        groups=_groups(start.model, options),
        parts=Batches(files, start.tokenizer, options, ranks).parts,
        count=lambda parts: torch.tensor([len(parts[0].query_ids), parts[0].tokens], dtype=torch.float32),
        made_by={
            "data": [file.digest for file in files],
            "start": list(start.facts.history),
            **({"teaching": [one.facts.teacher for one in taught]} if taught else {}),
        },
        measure=measure,
    )
    train(task, options, ranks, folder)
    known = options.model_dump(include={"k_query", "k_document", "query_tokens", "document_tokens"})
    return start._replace(facts=start.facts.after(f"finetune {options.model_dump_json()}", **known))


def _rarity(start: Checkpoint, files: Sequence[Records], options: FinetuneOptions) -> Tensor | None:
    """(V,) float32, what an index of the training passages would multiply the words of queries by; None for nothing.

    It is that of the weights training begins with, so that a run that was interrupted goes on with the same.
    """
    if start.facts.rarity_weight is None:
        return None
    encoder, passages = start.model.encoder, list[str]()
    for file in files:
        step = max(1, len(file) * len(files) // RARITY_PASSAGES)
        passages += [file[row].positives[0] for row in range(0, len(file), step)]
    was_training = encoder.training
    bags = encode(encoder.eval(), start.tokenizer, passages, (options.document_tokens, options.k_document))
    encoder.train(was_training)
    rarity = rarity_in(bags, encoder.vocabulary_size).to(encoder.special_ids.device)
    return start.facts.rarity_weight * rarity


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


def distill(scores: Tensor, teacher: Tensor, missing: Tensor) -> Tensor:
    """Sum over queries of KL(teacher || student) over the columns of (B, M) scores that are not `missing`."""
    ours, theirs = (side.masked_fill(missing, float("-inf")).log_softmax(1) for side in (scores, teacher))
    each = theirs.exp() * (theirs - ours)
    divergence: Tensor = each.masked_fill(missing, 0).sum()
    return divergence


def distance(cls: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Mean over texts of the squared distance of [CLS] vectors to others, which are stretched to `COSINE_SCALE ** 0.5`.

    Their products are then logits. The unit is the squared length of what is wanted: 1 for vectors of zeros.

    Args:
        cls: (N, d').
        wanted: (N, d') of length 1.
        weight: (N,), 1 for rows that count, 0 for repeated ones.
    """
    each = (cls.float() / COSINE_SCALE**0.5 - wanted).square().sum(1)
    mean: Tensor = (weight @ each) / weight.sum()
    return mean


def unlike(ot: Tensor, wanted: Tensor) -> Tensor:
    """(N, V) bags of words, and what they should be -> (N,) squared distances in units of what is wanted squared.

    A text of which nothing is wanted counts as 0: there is no unit to measure by.
    """
    unit = wanted.square().sum(1)
    return torch.where(unit > 0, (ot.float() - wanted).square().sum(1) / unit.clamp(min=1e-9), 0)


def flops(ot: Tensor, weight: Tensor) -> Tensor:
    """Sum over the vocabulary of the squared mean activation: the expected cost of a sparse product (SPLADE).

    Args:
        ot: (N, V).
        weight: (N,), 1 for rows that count, 0 for repeated ones.
    """
    return ((weight @ ot) / weight.sum()).square().sum()


class _Finetuning(nn.Module):
    """The losses of a batch of candidates, as the loop calls it."""

    def __init__(
        self,
        encoder: FusedEncoder,
        options: FinetuneOptions,
        ranks: Ranks,
        taught: Sequence[Teaching] = (),
        lexicon: Lexicon | None = None,
        rarity: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.options, self.ranks, self.taught, self.lexicon = encoder, options, ranks, taught, lexicon
        self.rarity = rarity

    def forward(self, drawn: Drawn, counts: Sequence[Tensor]) -> dict[str, Tensor]:
        """Losses and other means over the queries of all ranks, this rank's share of them."""
        options, (queries_in_all,) = self.options, counts
        everyone = Candidates.gathered(drawn, self.ranks)

        # ---- encode this rank's texts, take the other ranks' passages
        query = self._encode(drawn.query_ids, drawn.query_mask, options.k_query)
        own = self._encode(drawn.passage_ids, drawn.passage_mask, options.k_document)
        passage = self._gather(own, everyone.size)  # (M, ..)

        # ---- scores and losses
        weighed = self._dense(query)
        if self.rarity is not None:
            weighed = weighed._replace(ot=weighed.ot * self.rarity)
        cls, ot = scores(weighed, passage)  # (B, M) each
        fused = cls + ot
        columns = everyone.target, everyone.ignored
        terms = {"fused": contrast(fused, *columns), "cls": contrast(cls, *columns), "ot": contrast(ot, *columns)}
        total = options.contrast_weight * (terms["fused"] + options.part_weight * (terms["cls"] + terms["ot"]))
        if options.distill_weight:
            own_group = fused.gather(1, everyone.group.clamp(min=0))
            terms["distill"] = distill(own_group, drawn.teacher / options.temperature, everyone.group < 0)
            total = total + options.distill_weight * terms["distill"]
        if options.teach_weight:
            terms |= self._teach(drawn, everyone, (cls, ot))
            parts = terms["teach_cls"] + terms["teach_ot"]
            total = total + options.teach_weight * (terms["teach"] + options.part_weight * parts)

        if self.lexicon:
            own_once = everyone.once[self.ranks.rank * everyone.size :][: len(own[0])]
            asked = unlike(self._dense(query).ot, self.lexicon.bags(drawn.query_ids))
            held = own_once * unlike(self._dense(own).ot, self.lexicon.bags(drawn.passage_ids))
            terms["words"] = asked.sum() + held.sum() * queries_in_all / everyone.once.sum()
            total = total + options.words_weight * terms["words"]

        # ---- sparsity and vectors, over the texts of all ranks, each of which counts its share of it
        queries = self._gather(query, len(query[0]))
        alike = torch.ones(len(queries.cls), device=queries.cls.device)
        rise = self._rise(drawn.progress)
        shared = options.query_sparsity * rise * flops(queries.ot, alike)
        shared = shared + options.document_sparsity * rise * flops(passage.ot, everyone.once)
        if options.align_weight:
            away = self._away(drawn, queries, alike) + self._away(drawn, passage, everyone.once, everyone.keys)
            shared = shared + options.align_weight * away

        # ---- what the log shows
        best = fused.masked_fill(everyone.ignored, float("-inf")).argmax(1)
        terms["accuracy"] = (best == everyone.target).float().sum()
        terms["query_terms"] = (query[1].values > 0).float().sum()
        means = {name: value / queries_in_all for name, value in terms.items()}
        means["document_terms"] = (own[1].values > 0).float().sum(1).mean() / self.ranks.size
        if options.align_weight:
            means["align"] = away / self.ranks.size
        return {"total": total / queries_in_all + shared / self.ranks.size, **means}

    def _teach(self, drawn: Drawn, everyone: Candidates, parts: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """What two systems say of all the batch: their sum of the sum, each of its side."""
        cls, ot = parts
        said = self.taught[drawn.source].said(_numpy(drawn.query_keys), self._known(everyone.keys))
        cosine, words = (torch.from_numpy(side).to(cls.device) for side in said)
        cosine, words = COSINE_SCALE * cosine, self.options.words_scale * words
        missing = everyone.once == 0
        return {
            "teach": distill(cls + ot, cosine + words, missing),
            "teach_cls": distill(cls, cosine, missing),
            "teach_ot": distill(ot, words, missing),
        }

    def _away(self, drawn: Drawn, texts: Encoded, weight: Tensor, keys: Tensor | None = None) -> Tensor:
        """How far [CLS] vectors of all ranks' queries, or of passages with these keys, are from their teacher's."""
        numbers = _numpy(self.ranks.gather(drawn.query_keys)) if keys is None else self._known(keys)
        wanted = torch.from_numpy(self.taught[drawn.source].vectors(numbers)).to(texts.cls.device)
        with torch.autocast(wanted.device.type, enabled=False):
            return distance(texts.cls, wanted, weight)

    def _known(self, keys: Tensor) -> NDArray[np.int64]:
        """Keys of columns; an empty column, which nobody counts, takes that of the first."""
        return _numpy(torch.where(keys == 0, keys[0], keys))

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


def _numpy(keys: Tensor) -> NDArray[np.int64]:
    found: NDArray[np.int64] = keys.cpu().numpy()
    return found


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
