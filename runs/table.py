"""What `dupmae evaluate --json` measured, as the rows of README and model card, and as facts for an export.

python -m runs.table EVALUATION.json...            # Markdown
python -m runs.table --facts EVALUATION.json...    # {"evaluation": {...}} for `dupmae model export --facts`
"""

import json
import sys
from pathlib import Path

from indexer.evaluate import Evaluation

MEASURE = "nDCG@10"
COLUMNS = ("bm25", "cls", "ot", "rrf")


def main(words: list[str]) -> None:
    """Print one or the other."""
    found = [Evaluation.model_validate_json(Path(word).read_bytes()) for word in words if word != "--facts"]
    print(
        json.dumps({"evaluation": {name(e): facts(e) for e in found}}, indent=1) if "--facts" in words else rows(found)
    )


def rows(found: list[Evaluation]) -> str:
    """A row for each collection, the mean, and what fused search adds to each other one."""
    lines = ["| collection, split | passages | queries | BM25 | CLS only | OT only | rank fusion | **fused** |"]
    lines.append("|---" * 8 + "|")
    for one in found:
        others = " | ".join(short(one.systems[system][MEASURE].mean) for system in COLUMNS)
        lines.append(
            f"| {name(one, ' ')} | {one.documents:,} | {one.queries:,} | {others} | {interval(one, 'fused')} |"
        )
    means = [sum(e.systems[system][MEASURE].mean for e in found) / len(found) for system in (*COLUMNS, "fused")]
    lines.append(f"| mean | | | {' | '.join(map(short, means[:-1]))} | **{short(means[-1])}** |\n")
    lines.append("| fused minus | BM25 | CLS only | OT only |\n|---|---|---|---|")
    for one in found:
        differences = (one.fused_minus[system][MEASURE] for system in ("bm25", "cls", "ot"))
        cells = (f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]" for d in differences)
        lines.append(f"| {name(one, ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def facts(one: Evaluation) -> dict[str, float]:
    """For the manifest."""
    found = {f"{system} {MEASURE}": one.systems[system][MEASURE].mean for system in ("cls", "ot", "fused")}
    found["fused Recall@100"] = one.systems["fused"]["Recall@100"].mean
    return {key: round(value, 4) for key, value in found.items()}


def name(one: Evaluation, between: str = "/") -> str:
    """Collection and split."""
    return f"{one.collection}{between}{one.split}"


def interval(one: Evaluation, system: str) -> str:
    """A mean with its 95 % interval."""
    value = one.systems[system][MEASURE]
    return f"**{short(value.mean)}** [{short(value.low)}, {short(value.high)}]"


def short(value: float) -> str:
    """.712 for 0.7123."""
    return f"{value:.3f}".removeprefix("0")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
