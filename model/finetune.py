"""Fine-tuning: contrastive on the fused score, the two parts helped by small losses of their own.

The paper trains the sum as a whole (section 3.3). Each part alone is added with a small factor because otherwise the
one that starts better takes all the gradient, and because `mode=cls` and `mode=ot` are served as well.
"""

import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedTokenizerBase

from model.checkpoint import Checkpoint
from model.corpus import Example, batched, read_examples
from model.dupmae import DupMAE, FusedEncoder, Sparse
from model.lines import SourceError
from model.pretrain import linear_schedule


class FinetuneOptions(BaseModel):
    """What fine-tuning does; learning rates are per group because the heads are new and the body is not."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(1000, ge=1)
    batch_size: int = Field(32, ge=2, description="Queries a step; every passage of the batch is a candidate for each.")
    negatives: int = Field(1, ge=0, description="Hard negatives a query, drawn from its record.")
    query_tokens: int = Field(48, ge=4)
    document_tokens: int = Field(144, ge=8)
    k_query: int = Field(128, ge=1, description="Terms a query keeps.")
    k_document: int = Field(384, ge=1, description="Terms a passage keeps.")
    learning_rate: float = Field(2e-5, gt=0, description="Of the body.")
    head_learning_rate: float = Field(2e-4, gt=0, description="Of W_cls and the LPU.")
    term_learning_rate: float = Field(5e-3, gt=0, description="Of gains and biases of terms.")
    warmup: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    part_weight: float = Field(0.3, ge=0, description="Factor of the CLS-only and the OT-only loss.")
    query_sparsity: float = Field(0.003, ge=0, description="Factor of FLOPS regularization of queries.")
    document_sparsity: float = Field(0.001, ge=0, description="The same for passages.")
    seed: int = 0


class Encoded(NamedTuple):
    """`cls` (B, d') and `ot` (B, V) of a batch of texts."""

    cls: Tensor
    ot: Tensor


def finetune(checkpoint: Checkpoint, paths: Sequence[Path], options: FinetuneOptions, log: Path) -> Checkpoint:
    """Train in place and return the checkpoint with a line added to its history.

    Args:
        checkpoint: Where to start.
        paths: Files of `corpus.read_examples`. A batch comes from one file, so that its passages are like each other.
        options: What to do.
        log: JSON lines, one a step.
    """
    torch.manual_seed(options.seed)
    model, tokenizer, facts = checkpoint
    optimizer = AdamW(_groups(model, options), weight_decay=options.weight_decay)
    schedule = LambdaLR(optimizer, linear_schedule(options.steps, options.warmup))

    # ---- the loop
    model.train()
    batches = _batches([list(read_examples(path)) for path in paths], options)
    with log.open("a") as lines:
        for step in range(1, options.steps + 1):
            start = time.perf_counter()
            record = _step(model.encoder, tokenizer, next(batches), options)
            norm = nn.utils.clip_grad_norm_(model.encoder.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            record |= {"norm": norm.item(), "seconds": time.perf_counter() - start}
            rounded = {name: round(value, 4) for name, value in record.items()}
            print(json.dumps({"step": step, **rounded}), file=lines, flush=True)
    return Checkpoint(model, tokenizer, facts.after(f"finetune {options.model_dump_json()}"))


class Candidates(NamedTuple):
    """A batch: `queries`, every passage once in `passages`, and which of them are relevant to which query.

    `target` (B,) is the column of the positive drawn; `ignored` (B, M) bool marks the query's other positives, which
    are neither right nor wrong.
    """

    queries: list[str]
    passages: list[str]
    target: Tensor
    ignored: Tensor


def candidates(examples: Sequence[Example], negatives: int, rng: random.Random) -> Candidates:
    """Draw a positive and `negatives` negatives for each example; equal passages are one column.

    >>> batch = candidates([Example("q", ("a",), ("b",)), Example("r", ("b", "a"))], 1, random.Random(0))
    >>> batch.passages, batch.target.tolist(), batch.ignored.tolist()
    (['a', 'b'], [0, 0], [[False, False], [False, True]])
    """
    drawn = [rng.choice(example.positives) for example in examples]
    hard = [p for e in examples for p in rng.sample(e.negatives, min(negatives, len(e.negatives)))]
    columns = {passage: column for column, passage in enumerate(dict.fromkeys([*drawn, *hard]))}
    target = torch.tensor([columns[passage] for passage in drawn])
    ignored = torch.zeros(len(examples), len(columns), dtype=torch.bool)
    for row, example in enumerate(examples):
        for passage in example.positives:
            if passage in columns:
                ignored[row, columns[passage]] = True
    ignored[torch.arange(len(examples)), target] = False
    return Candidates([e.query for e in examples], list(columns), target, ignored)


def fused_loss(
    query: Encoded, passage: Encoded, batch: Candidates, part_weight: float
) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of the fused scores (B, M), plus `part_weight` times that of each part alone."""
    cls, ot = (
        (one @ other.t()).masked_fill(batch.ignored, float("-inf"))
        for one, other in ((query.cls, passage.cls), (query.ot, passage.ot))
    )
    fused, only_cls, only_ot = (F.cross_entropy(scores, batch.target) for scores in (cls + ot, cls, ot))
    hit = ((cls + ot).argmax(1) == batch.target).float().mean()
    numbers = {"fused": fused.item(), "cls": only_cls.item(), "ot": only_ot.item(), "accuracy": hit.item()}
    return fused + part_weight * (only_cls + only_ot), numbers


def flops(ot: Tensor) -> Tensor:
    """Sum over the vocabulary of the squared mean activation: the expected cost of a sparse product (SPLADE)."""
    return ot.mean(0).square().sum()


def _step(
    encoder: FusedEncoder, tokenizer: PreTrainedTokenizerBase, batch: Candidates, options: FinetuneOptions
) -> dict[str, float]:
    query = _encode(encoder, tokenizer, batch.queries, options.query_tokens, options.k_query)
    passage = _encode(encoder, tokenizer, batch.passages, options.document_tokens, options.k_document)
    loss, numbers = fused_loss(query, passage, batch, options.part_weight)
    loss = loss + options.query_sparsity * flops(query.ot) + options.document_sparsity * flops(passage.ot)
    loss.backward()
    numbers["query_terms"] = (query.ot > 0).sum(1).float().mean().item()
    numbers["document_terms"] = (passage.ot > 0).sum(1).float().mean().item()
    return numbers


def _encode(
    encoder: FusedEncoder, tokenizer: PreTrainedTokenizerBase, texts: list[str], tokens: int, k: int
) -> Encoded:
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=tokens, return_tensors="pt")
    cls, bag = encoder(inputs["input_ids"], inputs["attention_mask"], k)
    sparse: Sparse = bag
    return Encoded(cls, sparse.dense(encoder.terms.gain.numel()))


def _batches(files: list[list[Example]], options: FinetuneOptions) -> Iterator[Candidates]:
    """Endless; files take turns in proportion to the square root of their size, each shuffled anew when used up."""
    rng = random.Random(options.seed)

    def turns(examples: list[Example]) -> Iterator[list[Example]]:
        while True:
            yield from batched(rng.sample(examples, len(examples)), options.batch_size)

    small = [len(examples) for examples in files if len(examples) < options.batch_size]
    if small:
        raise SourceError(f"a training file holds {small[0]} examples, fewer than batch_size={options.batch_size}")
    streams = [turns(examples) for examples in files]
    while True:
        stream = rng.choices(streams, weights=[len(examples) ** 0.5 for examples in files])[0]
        yield candidates(next(stream), options.negatives, rng)


def _groups(model: DupMAE, options: FinetuneOptions) -> list[dict[str, object]]:
    """Body, heads and terms; the [CLS] decoder has no part in fine-tuning."""
    encoder = model.encoder
    body = list(encoder.mlm.bert.parameters())
    terms = list(encoder.terms.parameters())
    taken = {id(p) for p in (*body, *terms)}
    heads = [p for p in encoder.parameters() if id(p) not in taken]
    return [
        {"params": body, "lr": options.learning_rate},
        {"params": heads, "lr": options.head_learning_rate},
        {"params": terms, "lr": options.term_learning_rate, "weight_decay": 0.0},
    ]
