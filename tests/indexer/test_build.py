"""A build holds every document once or says why not, and never touches what is published."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.build import (
    BuildError,
    BuildInterrupted,
    BuildOptions,
    build_index,
    new_build_id,
    source_digest,
)
from indexer.documents import BadRecord, Document
from indexer.edge import EdgeEngine
from indexer.filling import WINDOW_CHARACTERS, WINDOW_DOCUMENTS, Tally, windows
from indexer.points import point_id
from indexer.store import Build, Chunking, Engine, Point
from model.encoder import Encoder
from model.lines import SourceError
from model.rarity import USUAL_NATS

BIRDS = [
    Document("gull", "white birds", "people of the sea work by day", "http://sea/gull", {"lang": "en"}),
    Document("owl", "birds of the night", "old birds sleep in the day"),
    Document("hen", text="the woman and the child run after it"),
]
NO_WORDS = Document("blank", text="☃ ☃ ☃", source="birds.jsonl", line=8)
BAD = BadRecord("birds.jsonl", 7, "not JSON", "{")
INDEX = "test-birds"


def build(
    engine: Engine,
    encoder: Encoder,
    records: Iterable[Document | BadRecord],
    *,
    max_bad: int = 100,
    dead_letters: Path | None = None,
) -> Build:
    options = BuildOptions(index=INDEX, fields={"metadata.lang": "keyword"}, max_bad=max_bad, dead_letters=dead_letters)
    return build_index(engine, encoder, records, options)


def points_of(engine: Engine, build: Build) -> list[Point]:
    store = engine.open(build.index, build.id)
    points = list(store.scroll())
    store.close()
    return points


def test_a_build_knows_how_rare_words_are_in_its_passages(engine: Engine, tiny_encoder: Encoder) -> None:
    made = build(engine, tiny_encoder, BIRDS)
    assert engine.builds(INDEX) == [made]
    assert made.rarity
    bags = [point.vector for point in points_of(engine, made)]
    query = bags[0]
    for term, value, weighed in zip(query.ot_indices, query.ot_values, made.weighed(query).ot_values, strict=True):
        held = sum(term in bag.ot_indices for bag in bags)
        counted = np.log(1 + (3 - held + 0.5) / (held + 0.5))
        assert weighed == pytest.approx(value * 0.2 * (3 * counted + 20 * USUAL_NATS) / 23, rel=1e-5)
    blind = made.weighed(query, blindly=True)
    assert blind.ot_values == pytest.approx(query.ot_values * 0.2 * USUAL_NATS)
    without = made.model_copy(update={"rarity": None})
    assert without.weighed(query) is without.weighed(query, blindly=True) is query


def test_every_document_is_stored_under_its_id_with_all_that_it_is(engine: Engine, tiny_encoder: Encoder) -> None:
    points = {point.id: point for point in points_of(engine, build(engine, tiny_encoder, BIRDS))}
    assert points.keys() == {point_id("gull"), point_id("owl"), point_id("hen")}
    assert points[point_id("gull")].payload == {
        "doc_id": "gull",
        "title": "white birds",
        "text": "people of the sea work by day",
        "url": "http://sea/gull",
        "metadata": {"lang": "en"},
        "parent_id": "gull",
        "chunk": 0,
        "chunks": 1,
        "start": 0,
        "end": 29,
        "content_hash": BIRDS[0].content_hash,
    }


def test_a_stored_vector_is_what_the_encoder_makes_of_the_passage(engine: Engine, tiny_encoder: Encoder) -> None:
    points = {point.id: point for point in points_of(engine, build(engine, tiny_encoder, BIRDS))}
    for document in BIRDS:
        (encoding,) = tiny_encoder.encode_documents([document.passage])
        stored = points[point_id(document.id)].vector
        np.testing.assert_allclose(stored.cls, encoding.vector.cls, atol=1e-5)
        np.testing.assert_array_equal(stored.ot_indices, encoding.vector.ot_indices)
        np.testing.assert_allclose(stored.ot_values, encoding.vector.ot_values, atol=1e-5)


def test_the_facts_of_a_build_are_kept_with_it(engine: Engine, tiny_encoder: Encoder) -> None:
    ready = build(engine, tiny_encoder, [*BIRDS, BAD, Document("long", text="water " * 100)])
    assert engine.builds(INDEX) == [ready]
    assert (ready.state, ready.documents, ready.dead, ready.read) == ("ready", 4, 1, 5)
    assert (ready.passages, ready.truncated, ready.unchanged) == (6, 0, 0)
    assert ready.chunking == Chunking()
    assert ready.fingerprint == tiny_encoder.fingerprint
    assert ready.source_digest == source_digest([*BIRDS, Document("long", text="water " * 100)])


def test_building_twice_gives_the_same_points(engine: Engine, tiny_encoder: Encoder) -> None:
    one, two = (points_of(engine, build(engine, tiny_encoder, BIRDS)) for _ in range(2))
    assert [(point.id, point.payload) for point in one] == [(point.id, point.payload) for point in two]
    for left, right in zip(one, two, strict=True):
        np.testing.assert_array_equal(left.vector.cls, right.vector.cls)


def test_a_new_build_does_not_change_what_is_published(engine: Engine, tiny_encoder: Encoder) -> None:
    first = build(engine, tiny_encoder, BIRDS)
    engine.publish(first)
    build(engine, tiny_encoder, BIRDS[:1])
    assert engine.published(INDEX) == first
    assert len(points_of(engine, first)) == 3


def test_bad_records_are_written_down_and_counted(engine: Engine, tiny_encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "letters/dead.jsonl"
    ready = build(engine, tiny_encoder, [BIRDS[0], BAD, NO_WORDS, BIRDS[1]], dead_letters=path)
    assert (ready.documents, ready.dead) == (2, 2)
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == {"source": "birds.jsonl", "line": 7, "reason": "not JSON", "record": "{"}
    assert (second["source"], second["line"]) == ("birds.jsonl", 8)
    assert "no word in it" in second["reason"]
    assert json.loads(second["record"])["text"] == NO_WORDS.text


def test_without_bad_records_there_is_no_file_for_them(engine: Engine, tiny_encoder: Encoder, tmp_path: Path) -> None:
    build(engine, tiny_encoder, BIRDS, dead_letters=tmp_path / "dead.jsonl")
    assert not (tmp_path / "dead.jsonl").exists()


def test_one_bad_record_too_many_fails_the_build_and_leaves_the_published_one(
    engine: Engine, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    published = build(engine, tiny_encoder, BIRDS)
    engine.publish(published)
    with pytest.raises(SourceError, match=r"more than 1 bad records.*birds\.jsonl, line 7: not JSON.*dead\.jsonl"):
        build(engine, tiny_encoder, [*BIRDS, BAD, BAD], max_bad=1, dead_letters=tmp_path / "dead.jsonl")
    failed, first = engine.builds(INDEX)
    assert (failed.state, first) == ("failed", published)
    assert engine.published(INDEX) == published
    assert len((tmp_path / "dead.jsonl").read_text().splitlines()) == 2


def test_nothing_to_index_is_an_error_and_not_an_empty_index(engine: Engine, tiny_encoder: Encoder) -> None:
    with pytest.raises(BuildError, match=r"no document to index \(2 bad records\)"):
        build(engine, tiny_encoder, [BAD, NO_WORDS])
    with pytest.raises(BuildError, match=r"no document to index \(1 bad records\)"):
        build(engine, tiny_encoder, [BAD])


def test_ctrl_c_leaves_the_build_unpublished_and_says_how_to_go_on(engine: Engine, tiny_encoder: Encoder) -> None:
    def stopped() -> Iterator[Document]:
        yield from BIRDS
        raise KeyboardInterrupt

    published = build(engine, tiny_encoder, BIRDS)
    engine.publish(published)
    with pytest.raises(BuildInterrupted, match="the same command goes on with build"):
        build(engine, tiny_encoder, stopped())
    assert engine.builds(INDEX)[0].state == "failed"
    assert engine.published(INDEX) == published


def test_an_id_that_comes_twice_is_a_bad_record_with_its_place(
    engine: Engine, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    again = replace(BIRDS[1], id="gull", source="birds.jsonl", line=9)
    ready = build(engine, tiny_encoder, [BIRDS[0], again, BIRDS[1]], dead_letters=tmp_path / "dead.jsonl")
    assert (ready.documents, ready.dead, ready.read) == (2, 1, 3)
    letter = json.loads((tmp_path / "dead.jsonl").read_text())
    assert (letter["source"], letter["line"], letter["reason"]) == ("birds.jsonl", 9, "id 'gull' occurs twice")
    assert json.loads(letter["record"]) == {
        "_id": "gull",
        "title": BIRDS[1].title,
        "text": BIRDS[1].text,
        "url": "",
        "metadata": {},
    }


def test_progress_is_told_from_the_first_window_to_the_end(engine: Engine, tiny_encoder: Encoder) -> None:
    seen: list[tuple[str, int, int]] = []

    def watch(tally: Tally) -> None:
        seen.append((tally.stage, tally.documents, tally.bad))

    documents = [Document(str(number), text="bird") for number in range(WINDOW_DOCUMENTS + 1)]
    build_index(engine, tiny_encoder, [BAD, *documents], BuildOptions(index=INDEX), watch)
    assert seen == [
        ("encoding", 0, 0),
        ("encoding", WINDOW_DOCUMENTS - 1, 1),
        ("encoding", WINDOW_DOCUMENTS + 1, 1),
        ("indexing", WINDOW_DOCUMENTS + 1, 1),
        ("verifying", WINDOW_DOCUMENTS + 1, 1),
        ("ready", WINDOW_DOCUMENTS + 1, 1),
    ]


def test_windows_hold_every_document_once_and_are_bounded_in_characters() -> None:
    long = Document("long", text="x" * WINDOW_CHARACTERS)
    short = [Document(str(number), text="bird") for number in range(2 * WINDOW_DOCUMENTS)]
    sizes = [len(window) for window in windows([*short[:3], long, *short[3:]])]
    assert sizes == [4, WINDOW_DOCUMENTS, WINDOW_DOCUMENTS - 3]


def test_the_source_digest_tells_order_ids_and_contents() -> None:
    changed = [BIRDS, BIRDS[::-1], BIRDS[:2], [replace(BIRDS[0], id="x"), *BIRDS[1:]]]
    assert len({source_digest(documents) for documents in changed}) == len(changed)


def test_build_ids_sort_by_time_and_differ() -> None:
    ids = [new_build_id() for _ in range(20)]
    assert len(set(ids)) == 20
    assert [id[:15] for id in ids] == sorted(id[:15] for id in ids)


def test_an_engine_that_vanished_does_not_hide_what_failed_first(tmp_path: Path, tiny_encoder: Encoder) -> None:
    def cut_off() -> Iterator[Document]:
        yield from BIRDS
        next(tmp_path.glob("indexes/*/builds/*/build.json")).unlink()
        raise SourceError("birds.jsonl: damaged")

    with pytest.raises(SourceError, match=r"birds\.jsonl: damaged"):
        build(EdgeEngine(tmp_path), tiny_encoder, cut_off())
