"""Questions that a build asks about itself: always the same, each answered by its own document, none a mere copy."""

from contextlib import ExitStack, closing
from dataclasses import replace

import pytest

from indexer.chunking import Passage
from indexer.documents import Document
from indexer.known_items import Queries, document_of, known_item_query, known_items, sample
from indexer.points import make_points, passage_text, point_id
from indexer.store import Build, Engine, Point
from model.encoder import Encoder
from tests.indexer.brute_force import random_points
from tests.indexer.collection import built, random_documents

VECTOR = random_points(1, seed=0)[0].vector


def point_of(document: Document) -> Point:
    return make_points(document, [Passage(0, 0, len(document.text))], [VECTOR])[0]


def asked(engine: Engine, candidate: Build, published: Build, count: int = 400) -> Queries:
    with ExitStack() as stack:
        ours, theirs = (
            stack.enter_context(closing(engine.open(build.index, build.id))) for build in (candidate, published)
        )
        return known_items(ours, theirs, count=count)


def test_questions_are_the_same_each_time_and_name_their_own_document(engine: Engine, tiny_encoder: Encoder) -> None:
    one, two = (built(engine, tiny_encoder, random_documents(30)) for _ in range(2))
    queries = asked(engine, one, two)
    assert queries == asked(engine, two, one)
    assert len(queries.texts) == 30
    texts = {document.id: document.passage for document in random_documents(30)}
    for query, words in queries.texts.items():
        (document,) = queries.qrels[query]
        assert set(words.split()) <= set(texts[document].split())
        assert len(words.split()) < len(texts[document].split()) / 2


def test_no_more_are_asked_than_wanted(engine: Engine, tiny_encoder: Encoder) -> None:
    build = built(engine, tiny_encoder, random_documents(30))
    assert len(asked(engine, build, build, count=7).texts) == 7


def test_only_documents_that_both_builds_hold_are_asked_for(engine: Engine, tiny_encoder: Encoder) -> None:
    one, two = (built(engine, tiny_encoder, random_documents(30)[part]) for part in (slice(20), slice(10, 30)))
    answers = {document for grades in asked(engine, one, two).qrels.values() for document in grades}
    assert answers == {f"d{number}" for number in range(10, 20)}


def test_an_edited_document_is_asked_for_by_both_of_its_texts(engine: Engine, tiny_encoder: Encoder) -> None:
    old, new = random_documents(5), random_documents(5, seed=1)
    edited = [*old[:4], replace(new[4], id=old[4].id)]
    queries = asked(engine, built(engine, tiny_encoder, edited), built(engine, tiny_encoder, old))
    assert sorted(query.partition("/")[2] for query in queries.texts) == ["0"] * 5 + ["1"]
    by_old = queries.texts[f"{point_id('d4')}/1"]
    assert set(by_old.split()) <= set(old[4].passage.split())


def test_a_sample_holds_every_point_once_and_begins_elsewhere_with_another_seed(
    engine: Engine, tiny_encoder: Encoder
) -> None:
    build = built(engine, tiny_encoder, random_documents(30))
    with closing(engine.open(build.index, build.id)) as store:
        drawn = [[point.id for point in sample(store, seed)] for seed in range(5)]
    assert all(sorted(ids) == sorted(drawn[0]) for ids in drawn)
    assert len({ids[0] for ids in drawn}) > 1


@pytest.mark.parametrize("text", ["", "gull", "three words only"])
def test_a_text_of_few_words_gives_no_question(text: str) -> None:
    assert known_item_query(point_of(Document("d", text=text))) is None


def test_a_question_is_half_of_one_sentence() -> None:
    first, second = "one two three four five six seven eight.", "nine ten eleven twelve a b c d e f."
    point = point_of(Document("d", title="Short", text=f"{first} {second}"))
    words = str(known_item_query(point)).split()
    assert any(set(words) <= set(sentence.split()) for sentence in (f"Short {first}", second))
    assert document_of(point) == "d"
    assert len(words) <= len(passage_text(point, None).split()) / 2
