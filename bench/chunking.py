"""What passages cost: CPU seconds of cutting documents, beside those of encoding them.

    python bench/chunking.py beir/scifact                  # the first 200 documents of the collection
    python bench/chunking.py beir/scifact --documents 2000

CPU time of one encoder thread, so that a machine with other work says the same. `cut` is the time of encoding what fits
the window of each document, which is what a build without passages does.
"""

import argparse
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from indexer.chunking import Chunker
from indexer.documents import Document
from indexer.sources import read_documents
from indexer.store import Chunking
from model.artifact import BUNDLED, Artifact
from model.encoder import Encoder


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="A collection in BEIR layout.")
    parser.add_argument("--documents", type=int, default=200)
    args = parser.parse_args()
    encoder = Encoder(Artifact.open(BUNDLED), threads=1)
    records = (record for record in read_documents([args.folder]) if isinstance(record, Document))
    documents = list(islice(records, args.documents))
    chunker = Chunker(encoder, Chunking())
    texts: list[str] = []

    def split() -> None:
        for document, passages in zip(documents, chunker.split(documents), strict=True):
            texts.extend(chunker.passage_text(document, passage) for passage in passages)

    encoder.encode_documents(["warm up"])
    chunking = cpu_seconds(split)
    passages = cpu_seconds(lambda: encoder.encode_documents(texts))
    cut = cpu_seconds(lambda: encoder.encode_documents([document.passage for document in documents]))
    print(f"{len(documents):,} documents, {len(texts):,} passages; CPU seconds of one thread")
    print(f"chunking {chunking:.2f}   encoding {passages:.2f}   cut {cut:.2f}")
    print(f"chunking takes {chunking / (chunking + passages):.1%}; documents per second: ", end="")
    print(f"{len(documents) / (chunking + passages):.1f} in passages, {len(documents) / cut:.1f} cut")


if __name__ == "__main__":
    main()
