"""The fused score: of one document, and of many at once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.vector import FusedVector, Parts

VOCABULARY = 40
FLOATS = st.floats(-1e3, 1e3, width=32)


@st.composite
def vectors(draw: st.DrawFn, dimensions: int = 5) -> FusedVector:
    indices = sorted(draw(st.sets(st.integers(0, VOCABULARY), max_size=12)))
    values = draw(st.lists(st.floats(2**-10, 1e3, width=32), min_size=len(indices), max_size=len(indices)))
    cls = draw(st.lists(FLOATS, min_size=dimensions, max_size=dimensions))
    return FusedVector(np.array(cls, np.float32), np.array(indices, np.int64), np.array(values, np.float32))


@given(vectors(), st.lists(vectors(), max_size=6))
def test_a_document_scores_the_same_bits_alone_and_among_others(
    query: FusedVector, documents: list[FusedVector]
) -> None:
    assert query.scores(documents) == [query.score(document) for document in documents]


@given(vectors(), vectors())
def test_the_score_is_the_inner_product_of_both_sides(query: FusedVector, document: FusedVector) -> None:
    bags = np.zeros((2, VOCABULARY + 1))
    for bag, vector in zip(bags, (query, document), strict=True):
        bag[vector.ot_indices] = vector.ot_values
    cls = query.cls.astype(np.float64) @ document.cls
    np.testing.assert_allclose(query.score(document), (cls, bags[0] @ bags[1]), rtol=1e-12, atol=1e-6)


def test_many_are_scored_as_wide_as_the_models_are() -> None:
    """Where numpy adds in blocks, which must not depend on how many rows there are."""
    random = np.random.default_rng(3)

    def vector() -> FusedVector:
        indices = np.sort(random.choice(30_522, 128, replace=False))
        return FusedVector(random.normal(size=384).astype(np.float32), indices, random.random(128, np.float32) + 1)

    query, documents = vector(), [vector() for _ in range(50)]
    alone = [query.score(document) for document in documents]
    assert query.scores(documents) == alone
    assert query.scores(documents[:7]) == alone[:7]
    assert query.scores([]) == []
    assert all(isinstance(parts, Parts) for parts in alone)
