"""A document as points."""

import sys
from types import FrameType

import numpy as np

from indexer.chunking import Passage
from indexer.documents import Document
from indexer.points import make_points
from tests.indexer.brute_force import random_vector


def test_a_document_is_hashed_once_however_many_passages_it_has() -> None:
    document, vector = Document("gull", text="x" * 300), random_vector(np.random.default_rng(1))
    passages = [Passage(number, number, number + 1) for number in range(300)]
    hashed = 0

    def watch(frame: FrameType, event: str, _: object) -> None:
        nonlocal hashed
        hashed += event == "call" and frame.f_code.co_name == "content_hash"

    sys.setprofile(watch)
    try:
        points = make_points(document, passages, [vector] * 300)
    finally:
        sys.setprofile(None)
    assert {point.payload["content_hash"] for point in points} == {document.content_hash}
    assert hashed == 1
