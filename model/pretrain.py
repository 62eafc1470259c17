"""Pre-training: raw text to a network whose [CLS] state and ordinary tokens each hold the text (sections 3.1, 3.2)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from model.checkpoint import Checkpoint
from model.distributed import Ranks, seed_of
from model.dupmae import Batch, Counts, DupMAE, Objective
from model.loop import Task, check_length, group, train
from model.masking import Masker
from model.options import PretrainOptions
from model.tokens import TokenRuns


def pretrain(start: Checkpoint, runs: TokenRuns, options: PretrainOptions, ranks: Ranks, folder: Path) -> Checkpoint:
    """Train a checkpoint's network in place and return it with a line added to its history.

    Args:
        start: Where to start.
        runs: The text, see `tokens.tokenized`.
        options: What to do.
        ranks: This process among others.
        folder: Gets log, plots and the state that an interrupted run goes on from.

    Raises:
        TrainingError: See `loop.train`; or the batch cannot be divided over ranks and parts.
        SourceError: The text gives not even one batch.
    """
    check_length("max_tokens", options.max_tokens, start.model.encoder)
    task = Task(
        name="pretrain",
        network=_Pretraining(start.model, _objective(options)),
        groups=_groups(start.model, options),
        frozen=[start.model.encoder.mlm.bert] if options.freeze_body else [],  # what does not learn needs no dropout
        parts=_Batches(runs, start.tokenizer, options, ranks).parts,
        count=_count,
        made_by={"data": runs.digest, "start": list(start.facts.history)},
    )
    train(task, options, ranks, folder)
    return start._replace(facts=start.facts.after(f"pretrain {options.model_dump_json()}"))


class _Pretraining(nn.Module):
    """The network as the loop calls it."""

    def __init__(self, dupmae: DupMAE, objective: Objective) -> None:
        super().__init__()
        self.dupmae, self.objective = dupmae, objective

    def forward(self, batch: Batch, counts: Sequence[Tensor]) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.dupmae(batch, self.objective, Counts(*counts))
        return losses


class _Batches:
    """This rank's parts of each step. Steps are asked for in order; only the first may be any."""

    def __init__(
        self, runs: TokenRuns, tokenizer: PreTrainedTokenizerBase, options: PretrainOptions, ranks: Ranks
    ) -> None:
        self._runs, self._options, self._ranks = runs, options, ranks
        self._frame = (int(tokenizer.cls_token_id), int(tokenizer.sep_token_id))
        self._stream: Iterator[list[list[int]]] | None = None
        self._masker = Masker(
            tokenizer,
            encoder_rate=options.encoder_mask,
            decoder_rate=options.decoder_mask,
            corruption=options.corruption,
            unit=options.decoder_unit,
        )

    def parts(self, step: int) -> list[Batch]:
        options = self._options
        if self._stream is None:
            self._stream = self._runs.batches(options.batch_size, options.seed, after=step - 1)
        cls, sep = self._frame
        framed = [[cls, *run, sep] for run in next(self._stream)]
        seeds = [seed_of(options.seed, step, row) for row in range(options.batch_size)]
        mine = self._ranks.share(list(zip(framed, seeds, strict=True)))
        size = -(-len(mine) // options.accumulate)
        return [self._masker.batch(*zip(*mine[at : at + size], strict=True)) for at in range(0, len(mine), size)]


def _count(parts: Sequence[Batch]) -> Tensor:
    return torch.stack([*Counts.of(*parts), torch.tensor(float(sum(int(p.attention_mask.sum()) for p in parts)))])


def _objective(options: PretrainOptions) -> Objective:
    return Objective(
        mlm=options.mlm_weight,
        cls=options.cls_weight,
        bow=options.bow_weight,
        bow_target=options.bow_target,
        bow_pool=options.bow_pool,
        decoder_input=options.decoder_input,
    )


def _groups(model: DupMAE, options: PretrainOptions) -> list[dict[str, object]]:
    """Body and heads. W_cls and the terms have no part in pre-training, nor has a decoder whose loss is left out."""
    bert = model.encoder.mlm.bert
    body = list(bert.parameters())
    tied = {id(parameter) for parameter in body}  # the LPU's matrix is the body's
    heads = [p for p in model.encoder.mlm.cls.parameters() if id(p) not in tied]
    if options.cls_weight:
        heads += model.decoder.parameters()
    groups = group(heads, options.head_learning_rate, options.weight_decay)
    return groups if options.freeze_body else [*groups, *group(body, options.learning_rate, options.weight_decay)]
