"""An int8 artifact with its loop over texts as this release writes it, from the weights that it has: no checkpoint.

    python -m runs.rewrite model/pretrained OUT CORPUS.jsonl ...

Each text of the files (JSON lines with `text`, and `title` if there is one) is then encoded as a query and as a
document by both. OUT is there only if every vector is the same, bit for bit; then it names the old fingerprint as
compatible beside those that it served, and their indexes are searched with it.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import onnx_ir as ir
from numpy.typing import NDArray

from model.artifact import GRAPH, MANIFEST, Artifact, digest
from model.encoder import Encoder, Encoding
from model.graph import EncoderGraph, Writer
from model.quantize import Int8Products
from model.thaw import thaw

PART = 256

T = TypeVar("T")


def main() -> None:
    """Write OUT, or say which text has another vector."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("texts", type=Path, nargs="+")
    given = parser.parse_args()
    if given.out.exists():
        parser.error(f"{given.out} exists; choose another folder or remove it")
    old, draft = Artifact.open(given.artifact), given.out.with_name(f"{given.out.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(old.path, draft)
    try:
        ir.save(rewritten(old), draft / GRAPH)
        served = {**old.manifest.compatible_with, old.manifest.fingerprint: 1.0}
        manifest = old.manifest.model_copy(update={"compatible_with": served})
        manifest = manifest.model_copy(update={"fingerprint": digest(draft, manifest)})
        (draft / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        before, after = Encoder(old), Encoder(Artifact.open(draft))
        for file in given.texts:
            print(f"{file}: {compared(before, after, file):,} texts", flush=True)
        draft.rename(given.out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    print(manifest.fingerprint)


def rewritten(artifact: Artifact) -> ir.Model:
    """The artifact's graph, with another loop."""
    model = ir.load(artifact.path / GRAPH)
    (loop,) = (node for node in model.graph if node.op_type == "Loop")
    features, keep = (present(node.inputs[0]) for node in islice(loop.attributes["body"].as_graph(), 2))  # Gather
    (k,) = (value for value in model.graph.inputs if value.name == "k")
    graph = EncoderGraph(thaw(artifact, pad_id=0), partial(Int8Products, inputs={}))
    graph.writer = Writer(model.graph.initializers)
    count = present(present(loop.inputs[0]).producer())
    shape = present(present(count.inputs[0]).producer())
    graph.writer.replace(loop, graph.bags(features, keep, k))
    model.graph.remove([count, shape], safe=True)
    return model


def present(found: T | None) -> T:
    """What a graph of this project has there."""
    assert found is not None
    return found


def compared(before: Encoder, after: Encoder, file: Path) -> int:
    """How many texts, each of which has the same vectors by both."""
    count, texts = 0, read(file)
    while part := list(islice(texts, PART)):
        for encode in (Encoder.encode_queries, Encoder.encode_documents):
            pairs = zip(part, encode(before, part), encode(after, part), strict=True)
            if changed := next((text for text, old, new in pairs if not same(old, new)), None):
                sys.exit(f"{file}: the vector of {changed[:80]!r} changed; nothing was written")
        count += len(part)
    return count


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
