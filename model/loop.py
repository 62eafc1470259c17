"""The training loop, one for both tasks: gradients of a step's parts, an update, a line in the log, at times a state.

Exact resume costs nothing here, because nothing runs on: a step's batch, masks, dropout and learning rate are functions
of seed and step number. A state is therefore weights, the optimizer's moments, and the number of steps done.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from pydantic import JsonValue
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from model.distributed import Ranks, seed_of
from model.dupmae import FusedEncoder
from model.options import Interrupted, LoopOptions, TrainingError
from model.run_log import RunLog

STATE = "state.pt"

FREE = frozenset({"device", "save_every"})
"""Options that may differ when a run goes on: they change no weight but for rounding."""


class Part(Protocol):
    """What a network is given at once: a batch, or a part of one."""

    def to(self, device: torch.device) -> "Part":
        """The same on another device."""


@dataclass(frozen=True)
class Task:
    """What is trained, on what.

    Attributes:
        name: For the log.
        network: Called with a part and the step's counts, it gives losses by name; `total` is learned from. They must
            add up over parts and ranks.
        groups: Parameters with their peak learning rates, as an optimizer takes them; all others are frozen.
        frozen: Modules that stay in evaluation mode.
        parts: The parts of a step that are this rank's, by step number; called from a thread, one step ahead.
        count: Of this rank's parts, what the losses are divided by: (n,), added up over ranks. The last one is tokens.
        made_by: What the weights depend on besides options: data, start.
        measure: Figures on held-out data after a step, or nothing.
    """

    name: str
    network: nn.Module
    groups: list[dict[str, Any]]
    parts: Callable[[int], Sequence[Part]]
    count: Callable[[Sequence[Any]], Tensor]
    made_by: Mapping[str, JsonValue]
    frozen: Sequence[nn.Module] = ()
    measure: Callable[[int], Mapping[str, float] | None] = lambda step: None


def train(task: Task, options: LoopOptions, ranks: Ranks, folder: Path) -> None:
    """Train the network in place, going on from the folder's state if there is one.

    Args:
        task: What to do.
        options: How.
        ranks: This process among others; the network is moved to its device.
        folder: Gets the log, plots and the state.

    Raises:
        TrainingError: The state is of another run, or a loss is not finite.
        Interrupted: SIGINT or SIGTERM came; the step was finished and its state saved.
    """
    network = task.network.to(ranks.device)
    if options.dropout is not None:
        set_dropout(network, options.dropout)
    _freeze_all_but(task.groups, network)
    optimizer = AdamW(task.groups, fused=ranks.device.type == "cuda")
    peaks = [group["lr"] for group in optimizer.param_groups]
    factor = linear_schedule(options.steps, options.warmup)
    learned = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = State(folder / STATE, network, optimizer, _identity(task, options))
    done = state.load()
    wrapped = DistributedDataParallel(network, broadcast_buffers=False) if ranks.size > 1 else network
    with _signals() as stop, _log(ranks, folder, options.steps, done, task.name) as log, ThreadPoolExecutor(1) as ahead:
        following = ahead.submit(task.parts, done + 1)
        for step in range(done + 1, options.steps + 1):
            # ---- this rank's share of the batch, and what the losses of all ranks are divided by
            started = time.perf_counter()
            parts = following.result()
            following = ahead.submit(task.parts, step + 1)
            sums = ranks.sum(torch.cat([task.count(parts), torch.tensor([float(stop())])]).to(ranks.device))
            *counts, tokens, stopping = sums.unbind()

            # ---- gradients, part after part
            network.train()
            for module in task.frozen:
                module.eval()
            torch.manual_seed(seed_of(options.seed, step, ranks.rank))  # of dropout
            losses: dict[str, Tensor] = {}
            for number, part in enumerate(parts, 1):
                with _unsynchronized(wrapped, number < len(parts)):
                    with torch.autocast(ranks.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
                        found = wrapped(part.to(ranks.device), counts)
                    (found["total"] * ranks.size).backward()  # DDP takes the mean over ranks of what is a sum
                losses = {name: losses.get(name, 0) + value.detach() for name, value in found.items()}

            # ---- the update
            norm = nn.utils.clip_grad_norm_(learned, options.clip)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor(step - 1)
            numbers = _numbers(losses, ranks) | {"norm": float(norm)}
            _refuse_what_is_not_finite(numbers, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            # ---- what is left behind
            rate = float(tokens) / (time.perf_counter() - started)
            log.write(step, {**numbers, "learning_rate": peaks[-1] * factor(step - 1), "tokens_s": int(rate)})
            if figures := task.measure(step):
                log.measured(step, "dev", figures)
            if step < options.steps and (step % options.save_every == 0 or stopping):
                state.save(step, ranks)
            if stopping and step < options.steps:
                raise Interrupted(f"stopped after step {step} of {options.steps}; the same command goes on from there")
    network.requires_grad_(True)
    network.eval().to("cpu")


@dataclass(frozen=True)
class State:
    """Weights, moments and number of steps of a run, in one file that is replaced as a whole."""

    path: Path
    network: nn.Module
    optimizer: AdamW
    made_by: Mapping[str, JsonValue]

    def load(self) -> int:
        """Put the state back, and return the number of steps done; 0 where there is none.

        Raises:
            TrainingError: It was left by a run with other options or data.
        """
        if not self.path.exists():
            return 0
        found = torch.load(self.path, map_location="cpu", weights_only=True)
        was, now = found["made_by"], self.made_by
        if other := [f"{key} was {was.get(key)!r}, is {now.get(key)!r}" for key in now if was.get(key) != now[key]]:
            raise TrainingError(
                f"{self.path.parent} holds an unfinished run that differs: {'; '.join(other)}. "
                "Give what it was given to go on, or --restart to begin anew"
            )
        self.network.load_state_dict(found["network"])
        self.optimizer.load_state_dict(found["optimizer"])
        done: int = found["step"]
        return done

    def save(self, step: int, ranks: Ranks) -> None:
        """Write the state after `step`; a crash leaves the one before."""
        if ranks.is_first:
            partial = self.path.with_suffix(".partial")
            with partial.open("wb") as file:
                content = {
                    "step": step,
                    "made_by": dict(self.made_by),
                    "network": self.network.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                }
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
        ranks.wait()


def linear_schedule(steps: int, warmup: float) -> Callable[[int], float]:
    """Factor of the learning rate at a step: linear up over the first `warmup` share, then linear down to 0.

    >>> [round(linear_schedule(10, 0.2)(step), 2) for step in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.12]
    """
    rise = max(1, round(steps * warmup))
    return lambda step: min((step + 1) / rise, (steps - step) / max(1, steps - rise))


def set_dropout(network: nn.Module, share: float) -> None:
    """Let every dropout layer drop this share; a checkpoint's configuration goes on saying what it said."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = share


def check_length(name: str, tokens: int, encoder: FusedEncoder) -> None:
    """Refuse an option that asks for longer texts than the network has positions for.

    Raises:
        TrainingError: It does.
    """
    positions = encoder.mlm.config.max_position_embeddings
    if tokens > positions:
        raise TrainingError(f"{name}={tokens}, but the network has {positions} positions; choose at most that many")


def group(parameters: Sequence[nn.Parameter], rate: float, decay: float) -> list[dict[str, Any]]:
    """Optimizer groups of one learning rate: matrices with weight decay, biases and norms without."""
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "lr": rate, "weight_decay": decay},
        {"params": others, "lr": rate, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _identity(task: Task, options: LoopOptions) -> dict[str, JsonValue]:
    chosen = {name: value for name, value in options.model_dump().items() if name not in FREE}
    return {"task": task.name, **task.made_by, **chosen}


def _freeze_all_but(groups: list[dict[str, Any]], network: nn.Module) -> None:
    network.requires_grad_(False)
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)


def _unsynchronized(network: nn.Module, more: bool) -> AbstractContextManager[None]:
    """Between the parts of a step ranks keep their gradients to themselves."""
    if more and isinstance(network, DistributedDataParallel):
        return network.no_sync()
    return nullcontext()


def _numbers(losses: dict[str, Tensor], ranks: Ranks) -> dict[str, float]:
    values = ranks.sum(torch.stack([value.float() for value in losses.values()]))
    return dict(zip(losses, values.tolist(), strict=True))


def _refuse_what_is_not_finite(numbers: Mapping[str, float], step: int) -> None:
    bad = {name: value for name, value in numbers.items() if not abs(value) < float("inf")}
    if bad:
        raise TrainingError(
            f"step {step}: {bad} is not finite; lower the learning rates, lengthen the warm-up, or use precision=fp32"
        )


class _NoLog:
    """What ranks but the first write."""

    def write(self, step: int, numbers: Mapping[str, float | int]) -> None:
        pass

    def measured(self, step: int, name: str, figures: Mapping[str, float]) -> None:
        pass


def _log(
    ranks: Ranks, folder: Path, steps: int, done: int, title: str
) -> AbstractContextManager[RunLog] | AbstractContextManager[_NoLog]:
    return RunLog(folder, steps=steps, done=done, title=title) if ranks.is_first else nullcontext(_NoLog())


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has come; a second one acts at once."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
