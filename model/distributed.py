"""The processes of one training run, as `torchrun` starts them: ranks, sums and gathers over them.

Alone, the same code runs as one rank of one. What a step computes does not depend on their number: each rank takes its
block of the same batch, losses are divided by counts over all ranks, and random draws belong to a text, not to a rank.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from model.options import TrainingError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among `size` of them.

    Attributes:
        rank: From 0.
        size: Number of ranks.
        device: Where this rank computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this rank writes logs, states and checkpoints."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's block of a batch.

        Raises:
            TrainingError: The batch cannot be divided evenly.
        """
        each, rest = divmod(len(items), self.size)
        if rest:
            raise TrainingError(f"a batch of {len(items)} cannot be divided over {self.size} ranks; choose a multiple")
        return items[self.rank * each : (self.rank + 1) * each]

    def sum(self, values: Tensor) -> Tensor:
        """`values` added up over ranks, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, rows: Tensor) -> Tensor:
        """(n, ..) of every rank -> (size * n, ..) in rank order, with the gradient of every rank's loss."""
        if self.size == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self)  # type: ignore[no-untyped-call]  # torch has none
        return gathered

    def wait(self) -> None:
        """Until every rank is here."""
        if self.size > 1:
            dist.barrier()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        everyone = [torch.empty_like(rows) for _ in range(ranks.size)]
        dist.all_gather(everyone, rows.contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.share(ctx.ranks.sum(grad.contiguous())), None


@contextmanager
def joined(device: str, seed: int = 0) -> Iterator[Ranks]:
    """Join the other ranks, if `torchrun` started this process; leave them at the end.

    Args:
        device: `auto`, `cpu` or `cuda`.
        seed: Of what is drawn before the first step, such as new heads: the same on every rank.

    Raises:
        TrainingError: `cuda` was asked for and there is none.
    """
    rank, size, local = (int(os.environ.get(name, value)) for name, value in _ALONE.items())
    here = _device(device, local)
    torch.manual_seed(seed)
    if size == 1:
        yield Ranks(rank, size, here)
        return
    if here.type == "cuda":
        torch.cuda.set_device(here)
    # ranks wait while the first one tokenizes, or measures
    dist.init_process_group("nccl" if here.type == "cuda" else "gloo", timeout=timedelta(hours=12))
    try:
        yield Ranks(rank, size, here)
    finally:
        dist.destroy_process_group()


def seed_of(*parts: int) -> int:
    """One seed from several numbers, such as seed, step and row.

    >>> seed_of(0, 1) != seed_of(1, 0)
    True
    """
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()) >> 1


_ALONE = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}


def _device(wanted: str, local: int) -> torch.device:
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise TrainingError("device=cuda, but torch sees no CUDA device; use device=cpu, or auto to take what there is")
    return torch.device("cuda", local) if there and wanted != "cpu" else torch.device("cpu")
