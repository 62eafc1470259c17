"""An int8 artifact with its graph as this release writes it, from the weights that it has: no checkpoint.

    python -m runs.rewrite model/pretrained OUT BEIR ... [--expansions CHECKPOINT]

Each text of the collections is then encoded as a query and as a document by both. OUT is there only if every vector is
the same, bit for bit; with the expansion vocabulary of a checkpoint that `dupmae model narrow` wrote, the same but for
the words that this leaves out. Then it names the old fingerprint as compatible, and those that this was compatible
with, and their indexes are searched with it: with the share of the ten best documents of each query that stay, if its
words are of the new artifact and the documents' of the old one.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.artifact import GRAPH, MANIFEST, Artifact, Manifest, digest
from model.checkpoint import Checkpoint, load
from model.encoder import Encoder, Encoding, Tokenized
from model.graph import EncoderGraph
from model.products import Weights
from model.quantize import Int8Products, Quantized, Rounded
from model.thaw import thaw
from model.vector import FusedVector
from runs.judged_vectors import read_judged, truncate

PART = 256
TOP = 10


def main() -> None:
    """Write OUT, or say which text has another vector."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("collections", nargs="+", help="BEIR folder, or folder:split")
    parser.add_argument("--expansions", type=Path, metavar="CHECKPOINT")
    given = parser.parse_args()
    if given.out.exists():
        parser.error(f"{given.out} exists; choose another folder or remove it")
    old, draft = Artifact.open(given.artifact), given.out.with_name(f"{given.out.name}.partial")
    manifest, expansions = old.manifest, None
    if given.expansions:
        narrowed = load(given.expansions)
        expansions = narrowed.model.encoder.expansions
        if problem := unlike(narrowed, old):
            parser.error(f"{given.expansions} {problem}")
        training = {**manifest.training, "runs": list(narrowed.facts.history)}
        manifest = manifest.model_copy(update={"training": training, "evaluation": {}})  # which was of other vectors
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(old.path, draft)
    try:
        ir.save(rewritten(old, expansions), draft / GRAPH)
        manifest = _written(manifest, draft)
        before, after = Encoder(old), Encoder(Artifact.open(draft))
        shares = [share for source in given.collections for share in compared(before, after, source, expansions)]
        stay = round(float(np.mean(shares)), 4)
        served = {one: round(stay * share, 4) for one, share in manifest.compatible_with.items()}
        manifest = _written(manifest.model_copy(update={"compatible_with": served | {old.fingerprint: stay}}), draft)
        draft.rename(given.out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    print(f"{manifest.fingerprint}, compatible {stay:g}")


def unlike(narrowed: Checkpoint, artifact: Artifact) -> str:
    """Why the artifact cannot have the checkpoint's expansions; empty if it can."""
    words = narrowed.model.encoder.expansions
    if words is None:
        return "may say any word; narrow it first"
    if not any(artifact.fingerprint[:12] in run for run in narrowed.facts.history):
        return f"was not made from {artifact.path}; give that to `dupmae model narrow`"
    had = thaw(artifact, pad_id=0).expansions
    if had is not None and not torch.isin(words, had).all():
        return f"has words that {artifact.path} cannot say; begin with an artifact that can"
    return ""


def _written(manifest: Manifest, folder: Path) -> Manifest:
    manifest = manifest.model_copy(update={"fingerprint": digest(folder, manifest)})
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


class Held(Int8Products):
    """Products with weights as they are rounded already."""

    def __init__(self, weights: Weights, arrays: Mapping[str, NDArray[Any]]) -> None:
        super().__init__(weights, {})
        self._arrays = arrays

    def rounded(self, name: str) -> Rounded:
        """What the arrays have of the layer of this name."""
        values, scales = (self._arrays[f"{name}.{kind}"] for kind in ("weight", "weight.scales"))
        return Rounded(self._arrays.get(f"{name}.smoothing"), Quantized(values, scales))


def rewritten(artifact: Artifact, expansions: Tensor | None) -> ir.Model:
    """The artifact's graph as this release writes it."""
    initializers = ir.load(artifact.path / GRAPH).graph.initializers
    arrays = {name: value.const_value.numpy() for name, value in initializers.items() if value.const_value}
    encoder = thaw(artifact, pad_id=0)
    if expansions is not None:
        encoder.expansions = expansions
    return EncoderGraph(encoder, partial(Held, arrays=arrays)).build()


def compared(before: Encoder, after: Encoder, source: str, expansions: Tensor | None) -> Sequence[float]:
    """Of each judged query, the share of its ten best that stay, once all texts are found to have the right vectors."""
    folder = Path(source.partition(":")[0])
    texts = [text for name in ("corpus.jsonl", "queries.jsonl") for text in read(folder / name)]
    for at in range(0, len(texts), PART):
        if changed := next(strays(before, after, texts[at : at + PART], expansions), None):
            sys.exit(f"{folder}: the vector of {changed[:80]!r} changed; nothing was written")
    judged = read_judged(source, before)
    ranker = judged.ranker(before.artifact.manifest.k_document)
    old, new = (
        {id: encoder.encode_queries([judged.texts[id]])[0].vector for id in judged.queries}
        for encoder in (before, after)
    )
    was, now = (ranker.runs(queries)["fused"] for queries in (old, new))
    shares = [len(best(was[id]) & best(now[id])) / len(best(was[id])) for id in was]
    print(f"{source}: {len(texts):,} texts, {np.mean(shares):.4f} of the ten best stay", flush=True)
    return shares


def strays(before: Encoder, after: Encoder, texts: Sequence[str], expansions: Tensor | None) -> Iterator[str]:
    """Those with another vector, as a query or as a document, than the old artifact has for the words left."""
    k = None if expansions is None else before.artifact.manifest.vocabulary_size
    for encode, tokenize in (
        (Encoder.encode_queries, Encoder.tokenize_query),
        (Encoder.encode_documents, Encoder.tokenize_document),
    ):
        for text, old, new in zip(texts, encode(before, texts, k=k), encode(after, texts), strict=True):
            if not same(without(old, tokenize(before, text), before.special_ids, expansions), new):
                yield text


def best(run: Mapping[str, float]) -> set[str]:
    """The first ten."""
    return set(sorted(run, key=lambda id: (-run[id], id))[:TOP])


def without(encoding: Encoding, tokens: Tokenized, special: Set[int], expansions: Tensor | None) -> Encoding:
    """What is left of an encoding with all its words where only expansions and the text's own may be."""
    if expansions is None:
        return encoding
    vector = encoding.vector
    kept = np.isin(vector.ot_indices, [*expansions.tolist(), *set(tokens.ids).difference(special)])
    left = FusedVector(vector.cls, vector.ot_indices[kept], vector.ot_values[kept])
    return replace(encoding, vector=truncate(left, tokens.k))


def same(old: Encoding, new: Encoding) -> bool:
    """Whether both are the same vectors, bit for bit."""
    return all(mine.tobytes() == theirs.tobytes() for mine, theirs in zip(arrays(old), arrays(new), strict=True))


def arrays(encoding: Encoding) -> Sequence[NDArray[Any]]:
    """What a vector is made of."""
    return encoding.vector.cls, encoding.vector.ot_indices, encoding.vector.ot_values


def read(file: Path) -> Iterator[str]:
    """The texts of a file, title first."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if text := f"{record.get('title', '')} {record['text']}".strip():
                yield text


if __name__ == "__main__":
    main()
