"""The artifact that is shipped: it must be whole, small, honest about itself, and the same in every batch."""

import numpy as np
import pytest

from model.artifact import BUNDLED, MODEL_CARD, Artifact
from model.encoder import Encoder

SENTENCES = [
    "how do I compress a file",
    "Run a function every five seconds.",
    "Does vitamin D prevent respiratory infections in children?",
    "Return a new array of given shape and type, filled with ones.",
    "The boundary layer on a flat plate at high speed becomes turbulent further downstream than theory predicts. " * 4,
    "Sherlock Holmes",
    "In 1969 the first message was sent over ARPANET, from Los Angeles to Menlo Park; it crashed after two letters.",
    "naïve café, 100 % déjà-vu!",
]


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return Artifact.open(BUNDLED)


@pytest.fixture(scope="module")
def encoder(artifact: Artifact) -> Encoder:
    return Encoder(artifact, threads=2)


def test_it_is_int8_and_at_most_30_mb(artifact: Artifact) -> None:
    assert artifact.manifest.precision == "int8"
    assert artifact.size <= 30e6


def test_its_licence_and_origin_are_stated(artifact: Artifact) -> None:
    assert artifact.manifest.licence == "Apache-2.0"
    assert "MiniLM" in artifact.manifest.base_model
    card = (artifact.path / MODEL_CARD).read_text(encoding="utf-8")
    assert "Apache-2.0" in card
    assert "MiniLM" in card


@pytest.mark.parametrize("max_batch_tokens", [1, 300, 4096])
def test_a_text_has_the_same_vectors_alone_and_in_any_batch(artifact: Artifact, max_batch_tokens: int) -> None:
    encoder = Encoder(artifact, threads=1, max_batch_tokens=max_batch_tokens)
    for text, encoding in zip(SENTENCES, encoder.encode_documents(SENTENCES), strict=True):
        [alone] = encoder.encode_documents([text])
        np.testing.assert_allclose(encoding.vector.cls, alone.vector.cls, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(encoding.vector.ot_indices, alone.vector.ot_indices)
        np.testing.assert_allclose(encoding.vector.ot_values, alone.vector.ot_values, rtol=0, atol=1e-5)


def test_the_rare_word_of_a_query_weighs_most(encoder: Encoder) -> None:
    vector = encoder.encode_queries(["does vitamin D prevent infections"])[0].vector
    assert encoder.vocabulary[vector.ot_indices[vector.ot_values.argmax()]] == "vitamin"


QUERIES = ["how do I compress a file", "run a function every five seconds", "does vitamin D prevent infections"]
PASSAGES = [
    "Compress data and return a string with the compressed data, for writing to a gzip file.",
    "Schedule a callback to be called after the given number of seconds.",
    "Supplementation with vitamin D reduced acute respiratory infections in a randomized trial.",
]
CANONICAL = np.array(
    [
        [[11.088, 4.569], [-0.265, 0.005], [-0.782, 0.000]],
        [[0.153, 0.010], [10.620, 0.360], [-0.391, 0.000]],
        [[-0.499, 0.004], [-0.066, 0.002], [14.087, 3.184]],
    ]
)
"""[CLS] and OT part of each query with each passage, by PyTorch in float32 from the checkpoint."""


def test_scores_are_those_of_the_network_that_was_trained(encoder: Encoder) -> None:
    queries, passages = encoder.encode_queries(QUERIES), encoder.encode_documents(PASSAGES)
    parts = [[query.vector.score(passage.vector) for passage in passages] for query in queries]
    np.testing.assert_allclose(np.array(parts)[..., 0], CANONICAL[..., 0], rtol=0, atol=0.75)
    np.testing.assert_allclose(np.array(parts)[..., 1], CANONICAL[..., 1], rtol=0, atol=0.25)
