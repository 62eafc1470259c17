"""What encoding with the bundled model costs in operations that repeat exactly: kernels that ONNX Runtime runs, bytes
that they read and write. Speed itself is measured in bench/.

A ceiling is what was counted and 5 % more, for another version of ONNX Runtime: its fusions are not ours. Who makes the
graph do more raises it knowingly; who makes it do less lowers it.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import pytest

from model.artifact import BUNDLED, GRAPH

ROOM = 1.05
TEXTS, TOKENS = 4, 128


class Cost(NamedTuple):
    """Of one call of the graph.

    Attributes:
        kernels: How many ran.
        weights: Bytes of weights that they read, but for what ONNX Runtime has laid out for a kernel beforehand.
        written: Bytes that they wrote.
    """

    kernels: int
    weights: int
    written: int


def cost(folder: Path, *, texts: int, tokens: int, k: int) -> Cost:
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix, options.intra_op_num_threads = True, str(folder / "run"), 1
    session = onnxruntime.InferenceSession(BUNDLED / GRAPH, options, providers=["CPUExecutionProvider"])
    ids = np.tile(np.arange(2000, 2000 + tokens), (texts, 1))
    session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids), "k": np.array(k)})
    events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [event["args"] for event in events if event["name"].endswith("_kernel_time")]
    return Cost(
        len(kernels),
        sum(int(kernel["parameter_size"]) for kernel in kernels),
        sum(int(kernel["output_size"]) for kernel in kernels),
    )


@pytest.fixture(scope="module")
def query(tmp_path_factory: pytest.TempPathFactory) -> Cost:
    return cost(tmp_path_factory.mktemp("query"), texts=1, tokens=12, k=32)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Cost:
    return cost(tmp_path_factory.mktemp("document"), texts=1, tokens=TOKENS, k=192)


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Cost:
    return cost(tmp_path_factory.mktemp("documents"), texts=TEXTS, tokens=TOKENS, k=192)


def test_a_batch_runs_as_many_kernels_as_a_query_and_reads_no_weight_again(
    query: Cost, document: Cost, documents: Cost
) -> None:
    assert query.kernels == document.kernels == documents.kernels <= 387 * ROOM
    assert query.weights == document.weights == documents.weights <= 25_229_706 * ROOM


def test_a_token_writes_no_more_bytes_than_it_did(query: Cost, documents: Cost) -> None:
    assert documents.written <= 428_282 * ROOM * TEXTS * TOKENS
    assert query.written <= 5_489_985 * ROOM
