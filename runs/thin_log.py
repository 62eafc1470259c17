"""A run's log made small enough to commit: `log.jsonl` with means over blocks of steps.

    python -m runs.thin_log checkpoints/2-fused/log.jsonl docs/figures/data/logs/fused/log.jsonl

A number becomes the mean over its block and stands at the block's last step; what was measured in between (dev figures)
stays as it was. Numbers keep five digits. What says nothing about the model (tokens a second) is left out.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from model.run_log import read_records
from runs.results import short

POINTS = 300
LEFT_OUT = frozenset({"tokens_s"})


def main() -> None:
    """Read, thin and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("out", type=Path, help="JSON lines")
    parser.add_argument("--points", type=int, default=POINTS, help="blocks, at most")
    arguments = parser.parse_args()
    records = thin(list(read_records(arguments.log)), arguments.points)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("".join(json.dumps(short(record)) + "\n" for record in records), encoding="utf-8")


def thin(records: Sequence[Mapping[str, Any]], points: int) -> Iterator[dict[str, Any]]:
    """Records of at most `points` blocks, each after what was measured up to its last step.

    >>> list(thin([{"step": n, "mlm": 9.0 - n} for n in (1, 2, 3, 4)], 2))
    [{'step': 2, 'mlm': 7.5}, {'step': 4, 'mlm': 5.5}]
    """
    size = -(-sum(map(_is_step, records)) // points)
    block: list[Mapping[str, Any]] = []
    for record in records:
        if not _is_step(record):
            yield dict(record)
            continue
        block.append(record)
        if len(block) == size:
            yield _mean(block)
            block = []
    if block:
        yield _mean(block)


def _is_step(record: Mapping[str, Any]) -> bool:
    return not any(isinstance(value, Mapping) for value in record.values())


def _mean(block: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = dict.fromkeys(name for record in block for name in record if name not in LEFT_OUT | {"step"})
    return {"step": block[-1]["step"]} | {name: _known_mean(record.get(name) for record in block) for name in names}


def _known_mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


if __name__ == "__main__":
    main()
