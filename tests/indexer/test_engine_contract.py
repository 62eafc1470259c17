"""One contract over every engine: builds, which of them is published, and what may be done to them."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from indexer.store import Build, Engine, FieldType, IndexNotFound, StoreError
from tests.indexer.brute_force import new_build, random_points, random_queries
from tests.indexer.conftest import ENGINES, opened_engine


class Site(NamedTuple):
    """Two builds of one index, the newer one published, each with as many points as its name says."""

    engine: Engine
    one: Build
    two: Build


def add_build(engine: Engine, build: Build, points: int) -> Build:
    store = engine.create(build)
    store.upsert(random_points(points, seed=points))
    store.flush()
    store.close()
    ready = build.model_copy(update={"state": "ready", "documents": points})
    engine.save(ready)
    return ready


@pytest.fixture(scope="module", params=ENGINES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Shared, so each test leaves it as it was."""
    with opened_engine(request.param, tmp_path_factory.mktemp("engine")) as engine:
        one = add_build(engine, new_build("one", day=1), points=1)
        two = add_build(engine, new_build("two", day=2), points=2)
        engine.publish(two)
        yield Site(engine, one, two)


def count(engine: Engine, index: str, build_id: str | None = None) -> int:
    store = engine.open(index, build_id)
    try:
        return store.count()
    finally:
        store.close()


def test_publishing_and_rolling_back_change_what_the_index_answers_and_delete_nothing(site: Site) -> None:
    assert (site.engine.published("test-birds"), count(site.engine, "test-birds")) == (site.two, 2)
    site.engine.publish(site.one)
    assert (site.engine.published("test-birds"), count(site.engine, "test-birds")) == (site.one, 1)
    site.engine.publish(site.two)
    assert (site.engine.published("test-birds"), count(site.engine, "test-birds")) == (site.two, 2)
    assert site.engine.builds("test-birds") == [site.two, site.one]
    assert count(site.engine, "test-birds", "one") == 1


def test_indexes_live_side_by_side(engine: Engine) -> None:
    birds = add_build(engine, new_build("one"), points=2)
    hawks = add_build(engine, new_build("one", "test-birds--of-prey"), points=3)
    engine.publish(birds)
    assert engine.indexes() == ["test-birds"]
    engine.publish(hawks)
    assert engine.indexes() == ["test-birds", "test-birds--of-prey"]
    assert engine.builds("test-birds") == [birds]
    assert engine.builds("test-birds--of-prey") == [hawks]
    assert (count(engine, "test-birds"), count(engine, "test-birds--of-prey")) == (2, 3)


def test_a_build_is_dropped_unless_it_is_published(engine: Engine) -> None:
    old, new = (add_build(engine, new_build(id), points=1) for id in ("old", "new"))
    engine.publish(new)
    with pytest.raises(StoreError, match="Build new of index test-birds is published; publish another one first"):
        engine.drop(new)
    engine.drop(old)
    assert engine.builds("test-birds") == [new]
    assert count(engine, "test-birds") == 1
    with pytest.raises(IndexNotFound, match="no build 'old'; builds that exist: new"):
        engine.drop(old)


def test_a_build_that_is_not_ready_is_not_published(engine: Engine) -> None:
    build = new_build("half")
    engine.create(build).close()
    with pytest.raises(StoreError, match="Build half of index test-birds is encoding; only a ready build"):
        engine.publish(build.model_copy(update={"state": "ready"}))
    assert engine.indexes() == []


def test_a_build_is_made_once(site: Site) -> None:
    with pytest.raises(StoreError, match="Build one of index test-birds exists"):
        site.engine.create(site.one)
    assert count(site.engine, "test-birds", "one") == 1


def test_a_build_opened_for_reading_is_not_written(site: Site) -> None:
    store = site.engine.open("test-birds")
    writes: list[Callable[[], None]] = [lambda: store.upsert(random_points(1, seed=9)), lambda: store.delete([])]
    for write in writes:
        with pytest.raises(StoreError, match="Build two of index test-birds is open for reading only"):
            write()
    store.close()


def test_a_build_opened_for_writing_again_keeps_old_and_new_points(engine: Engine) -> None:
    add_build(engine, new_build("one"), points=3)
    store = engine.open("test-birds", "one", write=True)
    store.upsert(random_points(5, seed=5)[3:])
    store.flush()
    store.optimize()
    store.close()
    store.close()
    assert count(engine, "test-birds", "one") == 5


def test_an_index_that_is_not_there_is_an_error_that_lists_those_that_are(site: Site) -> None:
    with pytest.raises(IndexNotFound, match=r"'test-fish' has no published build.*that have one: test-birds"):
        site.engine.open("test-fish")
    with pytest.raises(IndexNotFound, match="'test-birds' has no build 'three'; builds that exist: two, one"):
        site.engine.open("test-birds", "three")
    with pytest.raises(IndexNotFound, match="'test-fish' has no build 'one'; builds that exist: none"):
        site.engine.publish(new_build("one", "test-fish"))
    assert site.engine.builds("test-fish") == []


def test_an_empty_engine_has_no_indexes(engine: Engine) -> None:
    assert engine.indexes() == []
    assert engine.builds("test-birds") == []
    with pytest.raises(IndexNotFound, match="that have one: none"):
        engine.published("test-birds")


@pytest.mark.parametrize("name", ["", "Birds", "../birds", "a/b", "-a", "a" * 64, "vögel", "birds\n"])
def test_a_name_that_cannot_be_a_folder_and_a_collection_is_refused(engine: Engine, name: str) -> None:
    for act in (
        lambda: engine.create(new_build("one", name)),
        lambda: engine.open(name),
        lambda: engine.open(name, "one"),
        lambda: engine.builds(name),
    ):
        with pytest.raises(StoreError, match="is not allowed: use 1 to 63"):
            act()


@pytest.mark.parametrize("build_id", ["..", "a/b", ".hidden", "a b"])
def test_a_build_id_that_cannot_be_a_folder_is_refused(engine: Engine, build_id: str) -> None:
    with pytest.raises(StoreError, match=r"Build id .* is not allowed"):
        engine.create(new_build(build_id))
    with pytest.raises(StoreError, match=r"Build id .* is not allowed"):
        engine.open("test-birds", build_id)


@pytest.mark.parametrize("field", ["", "a b", "a..b", "a[0", "$score"])
def test_a_field_that_is_no_path_is_refused_before_anything_is_made(engine: Engine, field: str) -> None:
    fields: dict[str, FieldType] = {field: "keyword"}
    with pytest.raises(StoreError, match="cannot be indexed: name it as a path"):
        engine.create(new_build("one", fields=fields))
    assert engine.builds("test-birds") == []


def test_facts_are_kept_whole(engine: Engine) -> None:
    fields: dict[str, FieldType] = {"metadata.lang": "keyword", "tags[].name": "text"}
    build = new_build("one", fields=fields)
    store = engine.create(build)
    assert store.build == build
    assert engine.builds("test-birds") == [build]
    query = random_queries(1, seed=1)[0]
    assert store.search(query, filter={"must": {"key": "tags[].name", "match": {"text": "gull"}}}) == []
    store.close()
    failed = build.model_copy(
        update={"state": "failed", "documents": 7, "truncated": 2, "dead": 1, "source": "ü.jsonl"}
    )
    engine.save(failed)
    assert engine.builds("test-birds") == [failed]
