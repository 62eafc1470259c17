"""Documents per second of a whole build, beside those of encoding alone: what reading and writing cost.

    python bench/build.py [SOURCE] [--documents 1500] [--rounds 3]

Without a source it reads the documentation of the Python that runs, as `dupmae demo` does. Encoding alone and builds
read the same documents, alternately, so that a busy machine slows both. `share` is build over encoding alone, by
the median of the rounds. The time of the graph (`optimize`) is not in it; it is printed by itself.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from record import parser_of, write

from indexer.build import BuildOptions, build_index
from indexer.chunking import Chunker
from indexer.documents import Document
from indexer.edge import EdgeEngine
from indexer.encoders import encoding_apart, encoding_here
from indexer.encoding import encode_passages
from indexer.filling import Tally, windows
from indexer.settings import IndexSettings
from indexer.sources import read_documents
from indexer.stdlib import read_stdlib
from indexer.store import Chunking
from model.artifact import BUNDLED, Artifact
from model.encoder import Encoder


def encode_alone(encoder: Encoder, documents: Sequence[Document]) -> float:
    """Seconds to encode all documents, window by window."""
    chunker, began = Chunker(encoder, Chunking()), time.perf_counter()
    for window in windows(documents):
        encode_passages(chunker, [document for document in window if isinstance(document, Document)])
    return time.perf_counter() - began


def build(encoder: Encoder, documents: Sequence[Document], processes: int) -> tuple[float, float]:
    """Seconds until all documents are durable, and seconds of the graph."""
    entered: dict[str, float] = {}

    def watch(tally: Tally) -> None:
        entered.setdefault(tally.stage, time.perf_counter())

    chunker = Chunker(encoder, Chunking())
    encoding = (
        encoding_apart(IndexSettings(), encoder.artifact, Chunking(), processes)
        if processes > 1
        else encoding_here(chunker)
    )
    with tempfile.TemporaryDirectory() as folder:
        options = BuildOptions(data=Path(folder))
        build_index(EdgeEngine(Path(folder)), encoder, documents, options, watch, encoding=encoding)
    return entered["indexing"] - entered["encoding"], entered["verifying"] - entered["indexing"]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("source", nargs="?")
    parser.add_argument("--documents", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--artifact", type=Path, default=BUNDLED)
    given = parser.parse_args()
    read = read_documents([given.source]) if given.source else read_stdlib()
    documents = list(islice((record for record in read if isinstance(record, Document)), given.documents))
    encoder = Encoder(Artifact.open(given.artifact))
    encode_alone(encoder, documents[:64])
    alone, whole, apart, graph = [], [], [], []
    for _ in range(given.rounds):
        alone.append(encode_alone(encoder, documents))
        seconds, linking = build(encoder, documents, 1)
        whole.append(seconds)
        graph.append(linking)
        apart.append(build(encoder, documents, 2)[0])
    base = statistics.median(alone)
    print(f"{len(documents):,} documents, {given.rounds} rounds, graph {statistics.median(graph):.1f} s")
    rows = []
    for name, seconds in (("encoding alone", alone), ("build", whole), ("build, --encoders 2", apart)):
        median = statistics.median(seconds)
        spread = f"{min(seconds):.1f} to {max(seconds):.1f} s"
        print(f"{name:22s} {len(documents) / median:8.1f}/s  share {base / median:.3f}  {spread}")
        rows.append({"what": name, "documents_per_s": len(documents) / median, "share": base / median})
    write(given.json, rows)


if __name__ == "__main__":
    main()
