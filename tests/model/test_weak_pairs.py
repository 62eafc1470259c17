"""Weak pairs: what a text gives, and what is held out."""

import gzip
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.candidates import key
from model.corpus import Text, read_texts
from model.lines import SourceError
from model.records import Example, read_examples
from model.weak_pairs import (
    COUNTS,
    HELD_OUT,
    KEEP_SENTENCE,
    LEAST_TEXTS,
    MOST_HELD_OUT,
    MOST_PASSAGES,
    PAIRS,
    QUERY_WORDS,
    TEXTS,
    Counts,
    cloze,
    divided,
    smallest,
    weak_pairs,
    write,
)

SENTENCES = st.lists(
    st.lists(st.sampled_from(["gull", "cliff", "nest", "bread"]), min_size=1, max_size=40).map(
        lambda w: " ".join(w) + "."
    ),
    min_size=1,
    max_size=6,
)


def pairs(title: str, body: str, max_words: int = 96) -> list[Example]:
    return list(weak_pairs(Text(title, body), max_words, random.Random(0)))


def write_texts(path: Path, count: int) -> Path:
    """Each text has three sentences that no other one has; half of them have a title."""
    rows = [
        {
            "title": f"Gull {n}" if n % 2 else "",
            "text": f"Gull number {n} nests on a cliff. Bird {n} learned to open a door. It sold {n} loaves of bread.",
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_title_asks_for_the_beginning_of_its_text() -> None:
    body = "They nest on cliffs and eat whatever they find there."
    assert pairs(" Gulls  of the north ", body) == [Example("Gulls of the north", (body,))]


@pytest.mark.parametrize("between", ["\n", ". ", " - ", ": "])
def test_a_title_that_the_text_repeats_is_taken_out_of_it(between: str) -> None:
    body = "They nest on cliffs and eat whatever they find there."
    assert pairs("Gulls", f"GULLS{between}{body}") == [Example("Gulls", (body,))]


def test_a_word_that_only_begins_like_the_title_stays() -> None:
    body = "Gulls nest on cliffs and eat whatever they find there."
    assert pairs("Gull", body) == [Example("Gull", (body,))]


def test_later_passages_and_texts_without_a_title_give_sentences() -> None:
    sentences = ["One of them learned to open a door.", "Then it went out to sell bread to us."]
    body = "Gulls nest on cliffs in the far north.\n" + " ".join(sentences)
    titled, untitled = pairs("Birds", body, max_words=18), pairs("", body, max_words=18)
    assert [len(titled), len(untitled), titled[0].query] == [2, 1, "Birds"], "the first passage is one sentence"
    for pair in (titled[1], untitled[0]):
        (other,) = set(sentences) - {pair.query}
        assert pair.positives[0].removeprefix("Birds ") == other
    assert titled[1].positives[0].startswith("Birds "), "as a passage of this text is indexed"


def test_what_has_too_few_words_gives_nothing() -> None:
    assert pairs("", "") == pairs("Gulls", "See birds.") == pairs("", "One sentence of six words only.") == []
    assert pairs("", "Too short. As is this. " * 9) == []


@given(SENTENCES, st.integers(0, 1000))
def test_a_sentence_and_its_passage_together_are_the_passage(sentences: list[str], seed: int) -> None:
    passage = " ".join(sentences)
    query, rest = cloze(passage, random.Random(seed))
    if not query:
        assert rest == passage
        assert len(sentences) == 1 or not any(len(sentence.split()) in QUERY_WORDS for sentence in sentences)
    else:
        assert query in sentences
        assert len(query.split()) in QUERY_WORDS
        assert rest == passage or sorted(f"{rest} {query}".split()) == sorted(passage.split())


def test_about_one_query_in_ten_stays_in_its_passage() -> None:
    passage = "Gulls nest on cliffs here. One of them opened a door."
    stays = [cloze(passage, random.Random(seed))[1] == passage for seed in range(2000)]
    assert sum(stays) / len(stays) == pytest.approx(KEEP_SENTENCE, abs=0.03)


@given(st.integers(8, 60), st.integers(0, 400))
def test_no_passage_is_longer_than_asked_for(max_words: int, words: int) -> None:
    for pair in pairs("", "Gulls nest on every cliff. " * (words // 5), max_words):
        assert len(pair.positives[0].split()) <= max_words


def test_nothing_of_a_held_out_text_is_trained_on(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "gulls.jsonl", 600)
    counts = write([source], tmp_path / "out", max_words=96, seed=0)
    held = list(read_examples(tmp_path / "out" / HELD_OUT))
    assert counts == Counts(texts=570, pairs=570, queries=30, passages=600) == Counts.of(tmp_path / "out")
    assert len(held) == 30
    trained = (tmp_path / "out" / TEXTS).read_text() + (tmp_path / "out" / PAIRS).read_text()
    numbers = {word for example in held for word in example.positives[0].split() if word.isdigit()}
    assert not numbers & set(trained.replace('"', " ").replace(".", " ").split())
    kept = [text for text in read_texts([source]) if key(text) not in divided([source]).held_out]
    assert list(read_texts([tmp_path / "out" / TEXTS])) == kept


def test_held_out_queries_are_judged_against_passages_of_other_texts(tmp_path: Path) -> None:
    counts = write([write_texts(tmp_path / "gulls.jsonl", 600)], tmp_path / "out", max_words=96, seed=0)
    held = list(read_examples(tmp_path / "out" / HELD_OUT))
    passages = [passage for example in held for passage in (*example.positives, *example.negatives)]
    assert len(set(passages)) == len(passages) == counts.passages
    assert {len(example.negatives) for example in held} == {19}


def test_the_same_text_and_seed_give_the_same_files_packed_or_not(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "gulls.jsonl", 200)
    packed = tmp_path / "gulls.jsonl.gz"
    packed.write_bytes(gzip.compress(source.read_bytes()))
    for out, path, seed in (("one", source, 0), ("same", packed, 0), ("other", source, 1)):
        write([path], tmp_path / out, max_words=96, seed=seed)
    for name in (TEXTS, PAIRS, HELD_OUT, COUNTS):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "same" / name).read_bytes()
    assert (tmp_path / "one" / PAIRS).read_bytes() != (tmp_path / "other" / PAIRS).read_bytes()
    assert (tmp_path / "one" / TEXTS).read_bytes() == (tmp_path / "other" / TEXTS).read_bytes()


def test_a_text_is_on_the_same_side_wherever_it_stands_and_however_often(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "gulls.jsonl", 200)
    lines = source.read_text().splitlines(keepends=True)
    random.Random(0).shuffle(lines)
    (tmp_path / "again.jsonl").write_text("".join(lines * 3))
    one, again = divided([source]), divided([tmp_path / "again.jsonl"])
    assert one.held_out <= again.held_out
    write([tmp_path / "again.jsonl"], tmp_path / "out", max_words=96, seed=0)
    held = list(read_examples(tmp_path / "out" / HELD_OUT))
    assert len(held) == len(again.held_out) == 30


@pytest.mark.parametrize(("texts", "held_out"), [(LEAST_TEXTS, 20), (600, 30), (10_000, MOST_HELD_OUT)])
def test_a_twentieth_is_held_out_within_bounds(tmp_path: Path, texts: int, held_out: int) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"text {n}\n" for n in range(texts)))
    split = divided([path])
    assert (len(split.held_out), len(split.held_out | split.rivals)) == (held_out, min(texts, MOST_PASSAGES))


@given(st.lists(st.integers(0, 50)), st.integers(1, 20))
def test_the_smallest_numbers_are_those_of_a_sorted_set(numbers: list[int], count: int) -> None:
    assert smallest(numbers, count) == sorted(set(numbers))[:count]


def test_too_little_text_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"few\.jsonl: 99 different texts; at least 100 are needed"):
        divided([write_texts(tmp_path / "few.jsonl", 99)])
    (tmp_path / "same.txt").write_text("always the same\n" * 200)
    with pytest.raises(SourceError, match=r"same\.txt: 1 different texts"):
        divided([tmp_path / "same.txt"])
    (tmp_path / "short.txt").write_text("".join(f"word {n}\n" for n in range(200)))
    with pytest.raises(SourceError, match=r"short\.txt: texts that give no queries; they need titles or several sent"):
        write([tmp_path / "short.txt"], tmp_path / "out", max_words=96, seed=0)
    assert not (tmp_path / "out").exists()
