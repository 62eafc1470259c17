"""What an index will take, before it is made: counts, bytes on disk and in RAM, hours.

Every record is read, so documents are exact. A sample of them, drawn evenly, is encoded by the real encoder for the
rate and stored by the embedded engine for the size of texts; tokens and texts are then scaled by characters, time by
documents. What an engine needs for a vector is a formula whose constants were measured (docs/operations.md).
"""

import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from indexer.chunking import Chunker
from indexer.collection import CollectionOptions
from indexer.documents import BadRecord, Document
from indexer.edge import EdgeEngine
from indexer.edge_store import allocated_bytes
from indexer.encoding import EncodedDocument, encode_passages
from indexer.store import Build, Chunking
from model.encoder import Encoder
from model.lines import SourceError

BATCH = 256

BUILD_BYTES = 150_000
"""Of files and folders that hold nearly nothing, on disk."""

POINT_BYTES = 120
"""Of a point on disk: id, version and offsets 49, the index of its document and parent id 70."""

TERM_BYTES = 6.2
"""Of an OT entry in the stored vectors, and once more in the inverted index: 128 took 786 and 790. The index of a small
build is made in RAM when it is opened."""

LINK_BYTES = 55
"""Of a point's links in the graph, compressed, with m = 16; they grow with m."""

INDEXING_KB = 10_000
"""Dense vectors of a build from which on the engine makes indexes on disk: graph, inverted index, quantized copies."""

LINK_S = 5e-4
"""Of making the graph, a point of 384 dimensions with m = 16 and ef_construct = 100, on two cores."""


@dataclass(frozen=True, kw_only=True)
class CostOptions:
    """How an estimate is made.

    Attributes:
        sample: Documents that are encoded.
        workers: Machines like this one that encode side by side.
        chunking: How long documents become passages.
        collection: How the engine lays out the points.
        seed: Of the draw.
    """

    sample: int = 256
    workers: int = 1
    chunking: Chunking | None = Chunking()  # noqa: RUF009  # frozen
    collection: CollectionOptions = CollectionOptions()  # noqa: RUF009  # frozen
    seed: int = 0


class Cost(BaseModel):
    """What an index will take.

    Attributes:
        documents: That the sources hold, exactly.
        bad: Records that are none.
        sampled: Documents that were encoded to learn the rest.
        passages: Points of the index.
        tokens: That the model will read: of all passages, with their titles and overlaps.
        longer: Share of documents that are more than one passage.
        disk_bytes: Of one build; twice that while a second one is made beside it.
        serving_ram_bytes: The process that answers: encoder, vectors and their indexes.
        build_ram_bytes: The process that builds, at its peak.
        documents_per_s: Encoded by this machine as it was just now.
        encoding_hours: The same for all documents, by all workers.
        indexing_hours: Writing them, and making the graph, by one machine.
        workers: Machines that encode.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    documents: int
    bad: int
    sampled: int
    passages: int
    tokens: int
    longer: float
    disk_bytes: int
    serving_ram_bytes: int
    build_ram_bytes: int
    documents_per_s: float
    encoding_hours: float
    indexing_hours: float
    workers: int


class _Read(NamedTuple):
    documents: int
    bad: int
    characters: int
    sample: list[Document]


class _Tried(NamedTuple):
    """What the sample showed.

    Attributes:
        encoded: Documents that have a vector.
        encoding_s: Seconds to encode them.
        writing_s: Seconds to write them.
        payload_bytes: What the engine keeps of their texts, on disk.
        resident: Bytes of this process before anything was encoded, with the encoder loaded.
    """

    encoded: list[EncodedDocument]
    encoding_s: float
    writing_s: float
    payload_bytes: int
    resident: int


def estimate_cost(encoder: Encoder, records: Iterable[Document | BadRecord], options: CostOptions) -> Cost:
    """Read all records, encode a sample of them, and say what an index of them will take.

    Args:
        encoder: That will make the vectors.
        records: As `read_documents` gives them; read once, with the sample and the ids in memory.
        options: Size of the sample, workers, layout.

    Raises:
        SourceError: A source cannot be read, or holds no document that has a vector.
    """
    read = _read(records, options.sample, random.Random(options.seed))
    tried = _try(Chunker(encoder, options.chunking), read.sample)
    encodings = [encoding for document in tried.encoded for encoding in document.encodings]
    count = len(tried.encoded)
    share = read.characters / max(1, sum(len(each.document.passage) for each in tried.encoded))
    terms = sum(encoding.vector.ot_indices.size for encoding in encodings) / len(encodings)
    dense_dim = encoder.artifact.manifest.dense_dim
    passages = round(read.documents * len(encodings) / count)
    size = EngineCost(passages, dense_dim, terms, options.collection)
    return Cost(
        documents=read.documents,
        bad=read.bad,
        sampled=count,
        passages=passages,
        tokens=round(share * sum(encoding.tokens for encoding in encodings)),
        longer=sum(len(document.passages) > 1 for document in tried.encoded) / count,
        disk_bytes=round(size.disk + share * tried.payload_bytes),
        serving_ram_bytes=round(tried.resident + size.ram),
        build_ram_bytes=round(_peak_bytes() + size.ram),
        documents_per_s=count / tried.encoding_s,
        encoding_hours=read.documents * tried.encoding_s / count / options.workers / 3600,
        indexing_hours=(read.documents * tried.writing_s / count + size.graph_s) / 3600,
        workers=options.workers,
    )


class EngineCost:
    """Bytes and seconds that an engine needs for vectors; see the constants."""

    def __init__(self, points: int, dense_dim: int, terms: float, options: CollectionOptions) -> None:
        graph = 4 * dense_dim * points >= 1024 * INDEXING_KB
        links = LINK_BYTES * options.hnsw_m / 16 if graph else 0
        quantized = dense_dim + 4 if graph and options.quantization == "int8" else 0
        stored, index = 4 * dense_dim, TERM_BYTES * terms
        self.disk = BUILD_BYTES + points * (POINT_BYTES + stored + quantized + links + (2 if graph else 1) * index)
        self.ram = points * (quantized if options.on_disk else POINT_BYTES + stored + quantized + links + index)
        scale = dense_dim / 384 * options.hnsw_m / 16 * options.hnsw_ef_construct / 100
        self.graph_s = points * LINK_S * scale if graph else 0.0


def _read(records: Iterable[Document | BadRecord], size: int, draw: random.Random) -> _Read:
    """Count everything, and keep `size` documents, each with the same chance."""
    documents = bad = characters = 0
    sample: list[Document] = []
    for record in records:
        if isinstance(record, BadRecord):
            bad += 1
            continue
        documents += 1
        characters += len(record.passage)
        if len(sample) < size:
            sample.append(record)
        elif (place := draw.randrange(documents)) < size:
            sample[place] = record
    return _Read(documents, bad, characters, sample)


def _try(chunker: Chunker, sample: Sequence[Document]) -> _Tried:
    resident = _resident_bytes()
    encoded: list[EncodedDocument] = []
    began = time.perf_counter()
    for start in range(0, len(sample), BATCH):
        encoded += encode_passages(chunker, sample[start : start + BATCH]).documents
    encoding_s = time.perf_counter() - began
    if not encoded:
        raise SourceError("no document to estimate from; look at the sources with `dupmae index build`")
    writing_s, payload_bytes = _store(chunker.encoder, encoded)
    return _Tried(encoded, encoding_s, writing_s, payload_bytes, resident)


def _store(encoder: Encoder, encoded: Sequence[EncodedDocument]) -> tuple[float, int]:
    """Seconds to write points into an embedded build, and bytes on disk of their texts."""
    manifest = encoder.artifact.manifest
    build = Build(
        id="sample",
        index="sample",
        fingerprint=encoder.fingerprint,
        dense_dim=manifest.dense_dim,
        created=datetime.now(UTC),
    )
    with tempfile.TemporaryDirectory() as folder, closing(EdgeEngine(Path(folder)).create(build)) as store:
        began = time.perf_counter()
        for start in range(0, len(encoded), BATCH):
            store.upsert([point for document in encoded[start : start + BATCH] for point in document.points])
        writing_s = time.perf_counter() - began
        store.flush()
        return writing_s, sum(allocated_bytes(path) for path in Path(folder).rglob("payload_storage"))


def _resident_bytes() -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return _peak_bytes()
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
