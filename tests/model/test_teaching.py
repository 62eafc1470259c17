"""What two systems say of texts: cosines and BM25 as their formulas have them, folders that are not what they say."""

import hashlib
import math
import re
from pathlib import Path

import bm25s
import numpy as np
import pytest
from bm25s.stopwords import STOPWORDS_EN
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from Stemmer import Stemmer

from model.candidates import key
from model.lines import SourceError
from model.options import TrainingError
from model.records import Example, Records, to_line
from model.teaching import K1, USUAL_WEIGHT, B, Teaching, beside, teach

WORDS = "gulls gull nest nesting cliffs open a door selling bread the fish market harbour".split()
PASSAGES = [
    "Gulls nest on cliffs. A gull opened the door.",
    "The fish market sells bread; bread and fish.",
    "A door, a door, a door: nesting gulls do not open it, whatever the harbour says of doors and of gulls.",
    "Of the and to.",
]
EXAMPLES = [
    Example("gulls that open a door", (PASSAGES[0],), (PASSAGES[2], PASSAGES[1])),
    Example("where is bread sold", (PASSAGES[1],), (PASSAGES[3],)),
    Example("the", (PASSAGES[0],), ()),
]


def unit(text: str) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
    vector = np.random.default_rng(seed).normal(size=8).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def encode(queries: list[str], passages: list[str]) -> NDArray[np.float32]:
    return np.array([unit(text) for text in (*queries, *passages)]).reshape(-1, 8)


def taught(folder: Path, examples: list[Example]) -> Teaching:
    path = folder / "train.jsonl"
    path.write_text("".join(to_line(example) + "\n" for example in examples))
    records = Records(path)
    teach(records, records, encode, "a digest", restart=True)
    return Teaching.of(records)


def keys(texts: list[str]) -> NDArray[np.int64]:
    return np.array([key(text) for text in texts])


def test_words_are_bm25_over_the_root_of_what_the_query_s_words_weigh(tmp_path: Path) -> None:
    queries = [example.query for example in EXAMPLES]
    found = taught(tmp_path, EXAMPLES).said(keys(queries), keys(PASSAGES)).words
    stemmer = Stemmer("english")
    order = [PASSAGES[0], PASSAGES[2], PASSAGES[1], PASSAGES[3]]
    index = bm25s.BM25(k1=K1, b=B)
    tokens = bm25s.tokenize(order, stopwords="en", stemmer=stemmer, show_progress=False)
    index.index(tokens, show_progress=False)
    for row, query in enumerate(queries[:2]):
        stems = stemmer.stemWords([w for w in re.findall(r"\w\w+", query.lower()) if w not in STOPWORDS_EN])
        theirs = dict(zip(order, index.get_scores(stems) * (K1 + 1), strict=True))  # bm25s leaves the constant out
        weight = math.sqrt(USUAL_WEIGHT * sum(rarity(stem) for stem in stems))
        assert found[row].tolist() == pytest.approx([theirs[text] / weight for text in PASSAGES], abs=1e-5)
    assert not found[2].any()  # a query of stop words asks for nothing


def rarity(stem: str) -> float:
    stems = [set(Stemmer("english").stemWords(re.findall(r"\w\w+", text.lower()))) for text in PASSAGES]
    holding = sum(stem in each for each in stems)
    return math.log1p((len(PASSAGES) - holding + 0.5) / (holding + 0.5))


def test_cosines_are_products_of_the_encoder_s_vectors(tmp_path: Path) -> None:
    queries = [example.query for example in EXAMPLES]
    found = taught(tmp_path, EXAMPLES).said(keys(queries), keys(PASSAGES)).cosine
    wanted = [[float(unit(query) @ unit(passage)) for passage in PASSAGES] for query in queries]
    np.testing.assert_allclose(found, wanted, atol=2e-3)  # float16 on disk


@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), min_size=1, max_size=12))
def test_a_passage_that_holds_every_word_of_the_query_has_the_most(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    query = "gull door harbour"
    whole = f"{query} {query}"
    examples = [Example(query, (whole,), tuple(dict.fromkeys(text for text in texts if text.strip())))]
    teaching = taught(tmp_path_factory.mktemp("taught"), examples)
    negatives = list(examples[0].negatives)
    found = teaching.said(keys([query]), keys([whole, *negatives])).words[0]
    assert (found >= 0).all()
    rarest = math.log1p((found.size - 0.5) / 1.5)  # a word that one passage holds
    assert (found <= (K1 + 1) * math.sqrt(3 * rarest / USUAL_WEIGHT) + 1e-5).all()
    lacking = [n for n, text in enumerate(negatives, 1) if not set(query.split()) & set(text.split())]
    assert all(found[0] > found[n] for n in lacking)


def test_what_is_missing_or_of_other_records_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(to_line(EXAMPLES[0]) + "\n")
    with pytest.raises(SourceError, match=r"dupmae model teach TEACHER .*train.jsonl"):
        Teaching.of(Records(path))
    taught(tmp_path, EXAMPLES[:1])
    path.write_text(to_line(EXAMPLES[1]) + "\n")
    with pytest.raises(SourceError, match=r"other records than .* --restart"):
        Teaching.of(Records(path))
    (beside(path) / "keys.npy").write_bytes(b"torn")
    with pytest.raises(SourceError, match="teach TEACHER"):
        Teaching.of(Records(path))


def test_a_text_that_no_record_holds_is_an_error_not_a_neighbour_s_row(tmp_path: Path) -> None:
    teaching = taught(tmp_path, EXAMPLES)
    with pytest.raises(SourceError, match="lacks a text"):
        teaching.vectors(keys(["never seen"]))


def test_a_teaching_is_not_overwritten_unasked_nor_made_of_nothing(tmp_path: Path) -> None:
    taught(tmp_path, EXAMPLES)
    records = Records(tmp_path / "train.jsonl")
    with pytest.raises(FileExistsError, match="--restart"):
        teach(records, records, encode, "a digest")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(TrainingError, match="no record"):
        teach(Records(empty), [], encode, "a digest")
