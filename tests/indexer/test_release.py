"""A build goes live only if it may; one that may not leaves everything as it was, and says why."""

import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from indexer.build import BuildInterrupted
from indexer.catalog import go_live, keep_artifact, models_folder
from indexer.commands.printing import facts
from indexer.documents import Document
from indexer.edge import EdgeEngine
from indexer.gate import Limits
from indexer.journal import Write
from indexer.known_items import Queries
from indexer.points import point_id
from indexer.release import PublicationBlocked, ReleaseOptions, prune, release
from indexer.reuse import reusable
from indexer.settings import IndexSettings
from indexer.store import Build, Engine, StoreError
from model.artifact import Artifact, ArtifactError
from model.encoder import Encoder
from model.lines import SourceError
from tests.indexer.brute_force import new_build
from tests.indexer.collection import INDEX, built, random_documents

DOCUMENTS = random_documents(60)


@pytest.fixture(scope="module")
def encoder(reading_artifact: Artifact) -> Encoder:
    return Encoder(reading_artifact, threads=1)


@pytest.fixture
def settings(tmp_path: Path, reading_artifact: Artifact, tiny_artifact: Artifact) -> IndexSettings:
    settings = IndexSettings(data=tmp_path / "data", threads=1)
    for artifact in (reading_artifact, tiny_artifact):
        keep_artifact(settings, artifact)
    return settings


def live(engine: Engine, encoder: Encoder, documents: Sequence[Document] = DOCUMENTS) -> Build:
    build = built(engine, encoder, documents)
    engine.publish(build)
    return build


def stay_live(engine: Engine, settings: IndexSettings, candidate: Build, options: ReleaseOptions) -> str:
    """The reason why a candidate is blocked; what was published is so still, whole and unchanged."""
    before = engine.published(INDEX)
    with pytest.raises(PublicationBlocked) as blocked:
        release(engine, settings, candidate, options)
    assert engine.published(INDEX) == before
    with closing(engine.open(INDEX)) as store:
        assert store.count() == before.documents
    return str(blocked.value)


def test_the_first_build_of_an_index_is_verified_and_published(
    engine: Engine, settings: IndexSettings, encoder: Encoder
) -> None:
    build = built(engine, encoder, DOCUMENTS)
    done = release(engine, settings, build, ReleaseOptions())
    new = {"went_live": done.build.went_live, "probe": done.build.probe}
    assert engine.published(INDEX) == done.build == build.model_copy(update=new)
    assert done.judgement is None


def test_a_build_of_the_same_documents_passes_and_remembers_its_figures(
    engine: Engine, settings: IndexSettings, encoder: Encoder
) -> None:
    live(engine, encoder)
    candidate = built(engine, encoder, DOCUMENTS)
    done = release(engine, settings, candidate, ReleaseOptions())
    assert done.judgement is not None
    assert done.judgement.count == len(DOCUMENTS)
    assert engine.published(INDEX).id == candidate.id
    judged = engine.published(INDEX).judged
    assert judged["known items: nDCG@10 change"] == (0, 0, 0)
    assert judged["known items: nDCG@10"][0] > 0.5
    assert judged["known items: Recall@100"] == (1, 1, 1)


def test_what_a_published_build_will_be_asked_is_what_the_gate_asks_with_the_same_figure(
    engine: Engine, settings: IndexSettings, encoder: Encoder
) -> None:
    live(engine, encoder)
    done = release(engine, settings, built(engine, encoder, DOCUMENTS), ReleaseOptions())
    probe = engine.published(INDEX).probe
    assert done.judgement
    assert probe
    assert probe.name == done.judgement.queries
    assert len(probe.queries) == done.judgement.count
    own, judged = probe.own["ndcg_at_10"], done.judgement.candidate["nDCG@10"]
    assert own.mean == pytest.approx(judged.mean)
    assert 0 < own.low < own.mean < own.high
    told = {"name": "known items", "queries": 60, "own": {name: each.model_dump() for name, each in probe.own.items()}}
    assert facts(done.build, published=True)["probe"] == told


def test_judged_queries_are_kept_when_a_build_is_published_again_without_them(
    engine: Engine, settings: IndexSettings, encoder: Encoder
) -> None:
    words = " ".join(DOCUMENTS[0].text.split()[:6])
    judged = Queries("mine test", {"q": words, "long": "word " * 300}, {"q": {"d0": 2, "gone": 1}, "long": {"d1": 1}})
    build = release(engine, settings, built(engine, encoder, DOCUMENTS), ReleaseOptions(judged=judged)).build
    again = release(engine, settings, build, ReleaseOptions()).build
    for probe in (build.probe, again.probe):
        assert probe is not None
        assert (probe.name, [(query.text, query.right) for query in probe.queries]) == (
            "mine test",
            [(words, {"d0": 2, "gone": 1})],
        )


def test_a_build_without_words_to_ask_for_is_published_with_nothing_to_ask(
    engine: Engine, settings: IndexSettings, encoder: Encoder
) -> None:
    build = built(engine, encoder, [Document("a", text="letter"), Document("b", text="letter word")])
    assert release(engine, settings, build, ReleaseOptions()).build.probe is None


def test_a_model_that_finds_less_is_kept_from_going_live(
    engine: Engine, settings: IndexSettings, encoder: Encoder, tiny_encoder: Encoder
) -> None:
    published = live(engine, encoder)
    candidate = built(engine, tiny_encoder, DOCUMENTS)
    reason = stay_live(engine, settings, candidate, ReleaseOptions())
    assert "it finds less: nDCG@10" in reason
    assert f"build {published.id} still answers" in reason
    assert f"dupmae index publish {candidate.id} --index {INDEX} --no-gate" in reason
    mean, low, high = next(build for build in engine.builds(INDEX) if build.id == candidate.id).judged[
        "known items: nDCG@10 change"
    ]
    assert low <= mean <= high < 0


def test_half_the_documents_are_too_few(engine: Engine, settings: IndexSettings, encoder: Encoder) -> None:
    live(engine, encoder)
    half = built(engine, encoder, DOCUMENTS[:30])
    assert "it holds 30 documents where the published build has 60, 50% fewer" in stay_live(
        engine, settings, half, ReleaseOptions()
    )
    assert release(engine, settings, half, ReleaseOptions(limits=Limits(max_shrink=0.6))).build.id == half.id


def test_texts_that_were_cut_are_noticed_though_no_document_is_missing(
    engine: Engine, settings: IndexSettings, encoder: Encoder
) -> None:
    live(engine, encoder)
    cut = built(engine, encoder, [Document(each.id, each.title, each.text[:30]) for each in DOCUMENTS])
    assert "it finds less" in stay_live(engine, settings, cut, ReleaseOptions())


def test_a_build_that_is_not_what_it_says_is_kept_from_going_live(
    engine: Engine, settings: IndexSettings, encoder: Encoder
) -> None:
    live(engine, encoder)
    candidate = built(engine, encoder, DOCUMENTS)
    with closing(engine.open(INDEX, candidate.id, write=True)) as store:
        store.delete([point_id("d3")])
        store.flush()
    reason = stay_live(engine, settings, candidate, ReleaseOptions())
    assert "verification failed at points: 59, expected 60" in reason
    [marked] = [build for build in engine.builds(INDEX) if build.id == candidate.id]
    assert (marked.state, marked.reason) == ("ready", "verification failed at points")
    later = built(engine, encoder, DOCUMENTS)
    assert reusable(engine, later) == engine.published(INDEX), "its vectors are copied by no other build"
    release(engine, settings, candidate, ReleaseOptions(gate=False))
    assert engine.published(INDEX).id == candidate.id


def test_a_build_that_is_not_ready_is_refused_before_anything_is_written_into_it(
    engine: Engine, settings: IndexSettings, encoder: Encoder
) -> None:
    published = live(engine, encoder)
    engine.journal(INDEX).append([Write.put(Document("new", text="a horse and a cat"))])
    half = built(engine, encoder, DOCUMENTS).model_copy(update={"state": "encoding"})
    engine.save(half)
    with pytest.raises(StoreError, match="is encoding; only a ready build can be published"):
        release(engine, settings, half, ReleaseOptions())
    with closing(engine.open(INDEX, half.id)) as store:
        assert store.count() == len(DOCUMENTS)
    assert engine.published(INDEX).id == published.id


def _ctrl_c(points: int) -> None:
    raise KeyboardInterrupt


def test_a_release_that_is_stopped_leaves_a_ready_build_and_the_command_that_publishes_it(
    engine: Engine, settings: IndexSettings, encoder: Encoder
) -> None:
    published = live(engine, encoder)
    candidate = built(engine, encoder, DOCUMENTS)
    goes_on = f"`dupmae index publish {candidate.id} --index {INDEX}`"
    with pytest.raises(BuildInterrupted, match=f"what is published did not change, .* is ready. .*{goes_on}"):
        release(engine, settings, candidate, ReleaseOptions(watch=_ctrl_c))
    assert engine.published(INDEX).id == published.id
    assert release(engine, settings, candidate, ReleaseOptions()).build.id == candidate.id
    with pytest.raises(BuildInterrupted, match=f"index {INDEX} answers from build {candidate.id}"):
        release(engine, settings, engine.published(INDEX), ReleaseOptions(watch=_ctrl_c))


def test_a_judged_set_decides_where_it_is_given(engine: Engine, settings: IndexSettings, encoder: Encoder) -> None:
    live(engine, encoder)
    candidate = built(engine, encoder, DOCUMENTS[:-1])
    lost = Queries("mine test", {"q": DOCUMENTS[-1].text}, {"q": {"d59": 1}})
    assert "on 1 queries (mine test)" in stay_live(engine, settings, candidate, ReleaseOptions(judged=lost))
    foreign = Queries("mine test", {"q": "night"}, {"q": {"elsewhere": 1}})
    with pytest.raises(SourceError, match="mine test: no right answer is in these builds"):
        release(engine, settings, candidate, ReleaseOptions(judged=foreign))


def test_a_build_whose_model_is_not_kept_is_refused_even_without_a_gate(
    engine: Engine, settings: IndexSettings, encoder: Encoder
) -> None:
    published = live(engine, encoder)
    candidate = built(engine, encoder, DOCUMENTS)
    (models_folder(settings) / candidate.fingerprint / "model.onnx").unlink()
    for gate in (True, False):
        with pytest.raises(ArtifactError, match="lacks the model that encoded it"):
            release(engine, settings, candidate, ReleaseOptions(gate=gate))
    assert engine.published(INDEX) == published


def test_a_published_build_that_lost_its_model_cannot_hold_a_new_one_back(
    engine: Engine, settings: IndexSettings, encoder: Encoder, tiny_encoder: Encoder
) -> None:
    published = live(engine, tiny_encoder)
    shutil.rmtree(models_folder(settings) / published.fingerprint)
    candidate = built(engine, encoder, DOCUMENTS)
    done = release(engine, settings, candidate, ReleaseOptions())
    assert done.judgement is None
    assert "lacks the model that encoded it" in done.note
    assert engine.published(INDEX).id == candidate.id


def ready(engine: Engine, count: int) -> list[Build]:
    """Empty ready builds, oldest first."""
    builds = [new_build(f"b{day}", day=day).model_copy(update={"state": "ready"}) for day in range(1, count + 1)]
    for build in builds:
        engine.create(build).close()
    return builds


def left(engine: Engine) -> list[str]:
    return [build.id for build in engine.builds(INDEX)]


@pytest.mark.parametrize(
    ("published", "keep", "gone"),
    [
        (4, 0, []),
        (4, 1, ["b1", "b2", "b3", "b4"]),
        (4, 3, ["b1", "b2"]),
        (4, 9, []),
        (0, 1, ["b2", "b3", "b4", "b5"]),
        (0, 3, ["b2", "b3"]),
    ],
)
def test_the_oldest_builds_go_and_never_the_published_one(
    engine: Engine, settings: IndexSettings, published: int, keep: int, gone: list[str]
) -> None:
    builds = ready(engine, 5)
    engine.publish(builds[published])
    assert prune(engine, settings, INDEX, keep) == gone
    assert sorted({*left(engine), *gone}) == ["b1", "b2", "b3", "b4", "b5"]
    assert engine.published(INDEX).id == builds[published].id
    assert not set(gone) & set(left(engine))


def test_a_build_in_the_making_and_a_failed_one_are_nobodys_to_remove(engine: Engine, settings: IndexSettings) -> None:
    builds = ready(engine, 4)
    engine.save(builds[0].model_copy(update={"state": "indexing"}))
    engine.save(builds[1].model_copy(update={"state": "failed"}))
    engine.publish(builds[3])
    assert prune(engine, settings, INDEX, 1) == ["b3"]
    assert left(engine) == ["b4", "b2", "b1"]


def test_what_was_live_before_is_the_last_to_be_removed(engine: Engine, settings: IndexSettings) -> None:
    builds = ready(engine, 4)
    go_live(engine, builds[0])
    go_live(engine, builds[1])
    assert prune(engine, settings, INDEX, 2) == ["b3", "b4"]
    assert left(engine) == ["b2", "b1"]


def test_a_build_that_is_open_is_not_removed(settings: IndexSettings, tmp_path: Path) -> None:
    engine = EdgeEngine(tmp_path)
    builds = ready(engine, 3)
    engine.publish(builds[2])
    with closing(engine.open(INDEX, "b1")):
        assert prune(engine, settings, INDEX, 1) == ["b2"]
    assert prune(engine, settings, INDEX, 1) == ["b1"]


def test_builds_are_removed_after_the_publication_and_not_after_a_refusal(
    engine: Engine, settings: IndexSettings, encoder: Encoder
) -> None:
    one, two = live(engine, encoder), live(engine, encoder)
    half = built(engine, encoder, DOCUMENTS[:30])
    stay_live(engine, settings, half, ReleaseOptions(keep=1))
    assert len(left(engine)) == 3
    whole = built(engine, encoder, DOCUMENTS)
    assert release(engine, settings, whole, ReleaseOptions(keep=2)).removed == [one.id, half.id]
    assert left(engine) == [whole.id, two.id], "what was refused goes before what rollback would return to"
