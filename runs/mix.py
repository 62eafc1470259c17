"""A sample of the texts of training records, queries and passages, one a line, to fit heads on.

    python -m runs.mix COUNT OUT FILE...

Each file gives the same number of queries, and twice that of passages.
"""

import json
import random
import sys
from itertools import chain
from pathlib import Path

from model.records import Records


def main(count: int, out: Path, files: list[Path]) -> None:
    """Write `count` texts, or all there are."""
    rng, texts = random.Random(0), list[str]()
    each = count // len(files)
    for file in files:
        records = list(Records(file))
        queries = [example.query for example in records]
        passages = list(dict.fromkeys(chain.from_iterable((*e.positives, *e.negatives) for e in records)))
        texts += rng.sample(queries, min(each // 3, len(queries)))
        texts += rng.sample(passages, min(each - each // 3, len(passages)))
    rng.shuffle(texts)
    out.write_text("".join(json.dumps({"text": " ".join(t.split())}, ensure_ascii=False) + "\n" for t in texts))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(int(sys.argv[1]), Path(sys.argv[2]), [Path(path) for path in sys.argv[3:]])
