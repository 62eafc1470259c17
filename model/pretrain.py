"""Pre-training: `DupMAE` on raw text, one plain loop."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedTokenizerBase

from model.checkpoint import Checkpoint
from model.corpus import batched, forever, read_texts, sequences, shuffled
from model.dupmae import DupMAE, Weights
from model.masking import Masker


class PretrainOptions(BaseModel):
    """Defaults are the paper's, but for steps and batch, which are one machine's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(1000, ge=1)
    batch_size: int = Field(32, ge=2, description="Texts a step.")
    max_tokens: int = Field(128, ge=8, description="Tokens a text, [CLS] and [SEP] included.")
    learning_rate: float = Field(1e-4, gt=0)
    head_learning_rate: float = Field(1e-4, gt=0, description="For the LPU's transform and bias and the [CLS] decoder.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps.")
    weight_decay: float = Field(0.01, ge=0)
    encoder_mask: float = Field(0.3, gt=0, lt=1)
    decoder_mask: float = Field(0.5, gt=0, lt=1)
    mlm_weight: float = Field(1.0, ge=0)
    cls_weight: float = Field(1.0, ge=0, description="0 leaves the [CLS] decoder out.")
    bow_weight: float = Field(1.0, ge=0, description="0 leaves the bag of words out (then it is RetroMAE).")
    freeze_body: bool = Field(False, description="Train the heads only: for a body that has none yet.")
    seed: int = 0


def pretrain(checkpoint: Checkpoint, paths: list[Path], options: PretrainOptions, log: Path) -> Checkpoint:
    """Train in place and return the checkpoint with a line added to its history.

    Args:
        checkpoint: Where to start.
        paths: Text files, see `corpus.read_texts`; read again from the start when they end.
        options: What to do.
        log: JSON lines, one a step: losses (nats), tokens per second, learning rate.
    """
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    model, tokenizer, facts = checkpoint
    masker = Masker(tokenizer, encoder_rate=options.encoder_mask, decoder_rate=options.decoder_mask)
    weights = Weights(options.mlm_weight, options.cls_weight, options.bow_weight)
    optimizer = AdamW(_groups(model, options), weight_decay=options.weight_decay)
    schedule = LambdaLR(optimizer, linear_schedule(options.steps, options.warmup))

    # ---- the loop
    model.train()
    if options.freeze_body:
        model.encoder.mlm.bert.eval()  # a body that does not learn needs no dropout
    stream = _batches(paths, tokenizer, options)
    with log.open("a") as lines:
        for step in range(1, options.steps + 1):
            start = time.perf_counter()
            batch = masker.batch(next(stream), generator)
            losses = model(batch, weights)
            losses.total.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            rate = int(batch.attention_mask.sum()) / (time.perf_counter() - start)
            record = {"step": step, **_numbers(losses._asdict()), "norm": round(norm.item(), 3), "tokens_s": int(rate)}
            print(json.dumps(record), file=lines, flush=True)
    model.requires_grad_(True)  # a frozen body may be trained next
    return Checkpoint(model, tokenizer, facts.after(f"pretrain {options.model_dump_json()}"))


def linear_schedule(steps: int, warmup: float) -> Callable[[int], float]:
    """Factor of the learning rate at a step: linear up over the first `warmup` share, then linear down to 0.

    >>> [round(linear_schedule(10, 0.2)(step), 2) for step in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.12]
    """
    rise = max(1, round(steps * warmup))
    return lambda step: min((step + 1) / rise, (steps - step) / max(1, steps - rise))


def _batches(
    paths: list[Path], tokenizer: PreTrainedTokenizerBase, options: PretrainOptions
) -> Iterator[list[list[int]]]:
    def tokenize(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    special = frozenset(tokenizer.all_special_ids)

    def is_useful(run: list[int]) -> bool:
        return len(run) > 7 and not special.issuperset(run)  # one of unknown words only has no bag of words

    def epoch(number: int) -> Iterator[list[list[int]]]:
        runs = filter(is_useful, sequences(read_texts(paths), tokenize, options.max_tokens - 2))
        framed = ([tokenizer.cls_token_id, *run, tokenizer.sep_token_id] for run in runs)
        return batched(shuffled(framed, window=16_384, seed=options.seed + number), options.batch_size)

    return forever(epoch)


def _groups(model: DupMAE, options: PretrainOptions) -> list[dict[str, object]]:
    """Body and heads, each with its own learning rate; a frozen body has no group and no gradient."""
    body = list(model.encoder.mlm.bert.parameters())
    body_ids = {id(p) for p in body}
    unused = {id(p) for p in (*model.encoder.project.parameters(), *model.encoder.terms.parameters())}
    heads = [p for p in model.parameters() if id(p) not in body_ids | unused]
    for parameter in body:
        parameter.requires_grad_(not options.freeze_body)
    groups: list[dict[str, object]] = [{"params": heads, "lr": options.head_learning_rate}]
    return groups if options.freeze_body else [*groups, {"params": body, "lr": options.learning_rate}]


def _numbers(losses: dict[str, Tensor]) -> dict[str, float]:
    return {name: round(value.item(), 4) for name, value in losses.items()}
