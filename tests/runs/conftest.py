import json
from pathlib import Path

import pytest

from model.encoder import Encoder
from runs.judged_vectors import JudgedVectors, read_judged

PASSAGES = {
    "speed": "the speed of sound in air",
    "water": "cold water of the river and the sea",
    "dogs": "two dogs and a cat live in the house",
    "bread": "good bread and old wine on the table",
    "train": "the train to the north is late every night",
    "war": "war and peace, a book by a russian author",
    "index": "sort a list and search the index of words",
    "mute": "\u2603",
}
QUERIES = {
    "q1": "how fast is sound",
    "q2": "where do the dogs live",
    "q3": "a book about war",
    "q4": "\u2603",
    "q5": "fish",
}
JUDGED = [
    ("q1", "speed", 1),
    ("q2", "dogs", 1),
    ("q2", "water", 0),
    ("q3", "war", 2),
    ("q3", "index", 1),
    ("q4", "bread", 1),
]


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight passages and four judged queries; one of each holds no word that the model knows."""
    folder = tmp_path_factory.mktemp("beir") / "words"
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", PASSAGES), ("queries", QUERIES)):
        lines = (json.dumps({"_id": id, "text": text}) + "\n" for id, text in texts.items())
        (folder / f"{name}.jsonl").write_text("".join(lines))
    rows = [f"{query}\t{document}\t{grade}\n" for query, document, grade in JUDGED]
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    return folder


@pytest.fixture(scope="session")
def judged(collection: Path, tiny_encoder: Encoder) -> JudgedVectors:
    return read_judged(str(collection), tiny_encoder)
