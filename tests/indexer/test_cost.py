"""What an index will take, held against what a real build took. Speed is measured for the docs, never asserted."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer.build import BuildOptions, build_index
from indexer.chunking import Chunker
from indexer.collection import CollectionOptions
from indexer.cost import CostOptions, EngineCost, estimate_cost
from indexer.documents import BadRecord, Document
from indexer.edge import EdgeEngine
from model.encoder import Encoder
from model.lines import SourceError
from tests.conftest import WORDS

VOCABULARY = WORDS.split()


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    rng = np.random.default_rng(1)
    return [
        Document(str(number), text=" ".join(rng.choice(VOCABULARY, rng.integers(5, 90)))) for number in range(1_500)
    ]


def bytes_on_disk(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def test_an_estimate_from_a_sample_is_near_what_a_build_takes(
    tiny_encoder: Encoder, documents: list[Document], tmp_path: Path
) -> None:
    cost = estimate_cost(tiny_encoder, iter(documents), CostOptions(sample=300))
    build = build_index(EdgeEngine(tmp_path), tiny_encoder, documents, BuildOptions())
    chunker = Chunker(tiny_encoder, build.chunking)
    passages = chunker.split(documents)
    texts = [
        chunker.passage_text(document, each)
        for document, some in zip(documents, passages, strict=True)
        for each in some
    ]
    assert (cost.documents, cost.sampled) == (build.documents, 300)
    assert cost.passages == pytest.approx(build.passages, rel=0.05)
    assert cost.tokens == pytest.approx(sum(len(tiny_encoder.token_ids(text)) for text in texts), rel=0.05)
    assert cost.longer == pytest.approx(sum(len(some) > 1 for some in passages) / build.documents, abs=0.08)
    assert cost.disk_bytes == pytest.approx(bytes_on_disk(tmp_path), rel=0.2)


def test_bad_records_are_counted_and_cost_nothing(tiny_encoder: Encoder, documents: list[Document]) -> None:
    def records() -> Iterator[Document | BadRecord]:
        yield BadRecord("x", 1, "no id", "{}")
        yield from documents[:50]

    cost = estimate_cost(tiny_encoder, records(), CostOptions())
    assert (cost.documents, cost.bad, cost.sampled) == (50, 1, 50)


def test_workers_share_the_encoding_but_not_the_indexing(tiny_encoder: Encoder, documents: list[Document]) -> None:
    cost = estimate_cost(tiny_encoder, documents, CostOptions(sample=64, workers=4))
    alone = cost.documents / cost.documents_per_s / 3600
    assert cost.encoding_hours == pytest.approx(alone / 4)
    assert cost.indexing_hours > 0


def test_vectors_on_disk_leave_ram_and_quantized_ones_take_disk() -> None:
    plain, disk = (EngineCost(100_000, 384, 128, CollectionOptions(on_disk=each)) for each in (False, True))
    int8 = EngineCost(100_000, 384, 128, CollectionOptions(quantization="int8", on_disk=True))
    assert disk.ram == 0 < int8.ram < plain.ram / 4
    assert plain.disk == disk.disk < int8.disk


def test_a_document_that_has_no_vector_is_left_out_of_the_sample(tiny_encoder: Encoder) -> None:
    cost = estimate_cost(tiny_encoder, [Document("1", text="night birds"), Document("2", text="?!")], CostOptions())
    assert cost.documents == 2
    assert cost.sampled >= 1


def test_sources_without_a_document_are_an_error(tiny_encoder: Encoder) -> None:
    with pytest.raises(SourceError, match="no document to estimate from"):
        estimate_cost(tiny_encoder, [], CostOptions())
