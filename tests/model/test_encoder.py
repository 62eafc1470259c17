import numpy as np

from model.encoder import Encoder
from tests.conftest import TEXTS


def test_results_come_in_the_order_of_the_texts(tiny_encoder: Encoder) -> None:
    together = tiny_encoder.encode_documents(TEXTS)
    for text, encoding in zip(TEXTS, together, strict=True):
        [alone] = tiny_encoder.encode_documents([text])
        np.testing.assert_allclose(encoding.vector.cls, alone.vector.cls, atol=1e-5)
        np.testing.assert_array_equal(encoding.vector.ot_indices, alone.vector.ot_indices)
        np.testing.assert_allclose(encoding.vector.ot_values, alone.vector.ot_values, atol=1e-5)
