"""Mining on a real index and on real BM25: what is drawn, what never is; that batches and crashes change nothing."""

import io
import json
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import JsonValue
from typer.testing import CliRunner, Result

from indexer.bm25 import Bm25Ranker
from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact
from indexer.cli import app
from indexer.documents import Document
from indexer.edge import EdgeEngine
from indexer.mine import MiningOptions, Tally, mine
from indexer.negatives import Margin, RankWindow, text_key
from indexer.points import passage_text
from indexer.ranker import IndexRanker, Ranker
from indexer.settings import IndexSettings
from indexer.store import Chunking, IndexNotFound, Mode, Store
from model.artifact import Artifact
from model.cli import MissingExtra
from model.encoder import Encoder
from model.lines import SourceError
from model.records import Example, Records, read_examples, to_line
from tests.conftest import WORDS

VOCABULARY = [word for word in WORDS.split() if len(word) > 2]
WORDLESS = "\U0001f600"


def phrase(rng: random.Random, length: int) -> str:
    return " ".join(rng.choices(VOCABULARY, k=length))


RNG = random.Random(5)
DOCUMENTS = [
    Document(f"d{number}", title=phrase(RNG, 1) if number % 3 else "", text=phrase(RNG, 12)) for number in range(80)
]
PASSAGES = [document.passage for document in DOCUMENTS]
EXAMPLES = [
    Example(phrase(RNG, 4), tuple(RNG.sample(PASSAGES, 1 + number % 2)) + (phrase(RNG, 9),) * (number % 3 == 0))
    for number in range(23)
]
ALL = MiningOptions(ranks=RankWindow(1, 80), draw=80)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Encoder) -> Path:
    """A data folder with a published index of the documents."""
    folder = tmp_path_factory.mktemp("data")
    with closing(EdgeEngine(folder)) as engine:
        engine.publish(build_index(engine, tiny_encoder, DOCUMENTS, BuildOptions(index="words")))
    return folder


@pytest.fixture
def store(data: Path) -> Iterator[Store]:
    with closing(EdgeEngine(data).open("words")) as store:
        yield store


@pytest.fixture
def ranker(tiny_encoder: Encoder, store: Store) -> Ranker:
    return IndexRanker(tiny_encoder, store, "fused")


def write(path: Path, *examples: Example) -> Path:
    path.write_text("".join(to_line(example) + "\n" for example in examples), encoding="utf-8")
    return path


Mine = Callable[..., tuple[list[Example], Tally]]


@pytest.fixture
def mined(tmp_path: Path) -> Mine:
    """Mines examples and returns what came of them."""

    def run(ranker: Ranker, options: MiningOptions, *examples: Example) -> tuple[list[Example], Tally]:
        out = tmp_path / "mined.jsonl"
        with Records(write(tmp_path / "given.jsonl", *examples)) as records:
            tally = mine(records, out, ranker, replace(options, restart=True))
        return list(read_examples(out)), tally

    return run


def test_negatives_are_the_hits_of_the_ranks_that_are_no_positives(
    mined: Mine, ranker: Ranker, store: Store, tiny_encoder: Encoder
) -> None:
    found, tally = mined(ranker, replace(ALL, ranks=RankWindow(6, 30)), *EXAMPLES)
    for given, example in zip(EXAMPLES, found, strict=True):
        [query] = tiny_encoder.encode_queries([given.query])
        hits = [
            passage_text(hit.point, Chunking()) for hit in store.search(store.build.weighed(query.vector), limit=30)[5:]
        ]
        assert (example.query, example.positives) == (given.query, given.positives)
        assert sorted(example.negatives) == sorted(set(hits) - set(given.positives))
    assert tally.negatives == tally.hits == sum(len(example.negatives) for example in found)
    assert (tally.queries, tally.short, tally.too_close, tally.bare) == (23, 23, 0, 0)


@pytest.mark.parametrize("mode", ["fused", "cls", "ot"])
@pytest.mark.parametrize("margin", [Margin(), Margin(share=0.2), Margin(amount=1.5)])
def test_the_margin_leaves_out_exactly_what_scores_too_close_to_the_lowest_positive(
    mined: Mine, tiny_encoder: Encoder, store: Store, mode: Mode, margin: Margin
) -> None:
    def score(query: str, text: str) -> float:
        [one], [other] = tiny_encoder.encode_queries([query]), tiny_encoder.encode_documents([text])
        parts = store.build.weighed(one.vector).score(other.vector)
        return {"fused": parts.score, "cls": parts.cls, "ot": parts.ot}[mode]

    ranker = IndexRanker(tiny_encoder, store, mode)
    free, _ = mined(ranker, ALL, *EXAMPLES[:8])
    kept, tally = mined(ranker, replace(ALL, margin=margin), *EXAMPLES[:8])
    for all_of_them, example in zip(free, kept, strict=True):
        limit = margin.limit([score(example.query, text) for text in example.positives])
        far = {text for text in all_of_them.negatives if score(example.query, text) < limit}
        assert set(example.negatives) == far
    assert tally.hits == sum(len(example.negatives) for example in free)
    assert tally.too_close == tally.hits - tally.negatives > 0


def test_a_positive_scores_the_same_found_or_encoded(ranker: Ranker) -> None:
    for example in EXAMPLES:
        deep, shallow = (ranker.rank([example], limit, score_positives=True)[0] for limit in (80, 1))
        assert deep is not None
        assert shallow is not None
        assert sorted(deep.positives) == pytest.approx(sorted(shallow.positives), abs=1e-4)


def test_rank_fusion_finds_what_the_store_finds(mined: Mine, tiny_encoder: Encoder, store: Store) -> None:
    found, _ = mined(IndexRanker(tiny_encoder, store, "rrf"), replace(ALL, ranks=RankWindow(1, 9)), EXAMPLES[0])
    [query] = tiny_encoder.encode_queries([EXAMPLES[0].query])
    asked = store.build.weighed(query.vector)
    hits = {passage_text(hit.point, Chunking()) for hit in store.search(asked, mode="rrf", limit=9)}
    assert set(found[0].negatives) == hits - set(EXAMPLES[0].positives)


def test_no_more_are_drawn_than_asked_and_another_seed_draws_others(mined: Mine, ranker: Ranker) -> None:
    options = replace(ALL, draw=7)
    one, two = (mined(ranker, replace(options, seed=seed), *EXAMPLES)[0] for seed in (0, 1))
    assert {len(set(example.negatives)) for example in one + two} == {7}
    assert [example.negatives for example in one] != [example.negatives for example in two]


def test_a_positive_of_the_same_query_elsewhere_a_copy_and_a_hidden_text_are_never_negatives(
    mined: Mine, ranker: Ranker
) -> None:
    first, second = Example("red  fish", (PASSAGES[0],)), Example("red fish", (PASSAGES[1] + " ", DOCUMENTS[4].text))
    found, _ = mined(ranker, replace(ALL, hidden=frozenset({text_key(PASSAGES[2])})), first, second)
    never = {PASSAGES[0], PASSAGES[1], PASSAGES[2], PASSAGES[4]}
    assert [set(PASSAGES) - set(example.negatives) for example in found] == [never, never]


def test_given_negatives_are_replaced_or_kept_in_front_without_what_is_right(mined: Mine, ranker: Ranker) -> None:
    twin = Example("red fish", (PASSAGES[1],))
    given = Example("red fish", (PASSAGES[0],), ("mine", PASSAGES[1], PASSAGES[2]))
    [replaced, _], _ = mined(ranker, ALL, given, twin)
    [kept, _], tally = mined(ranker, replace(ALL, keep=True, draw=5), given, twin)
    assert set(replaced.negatives) == set(PASSAGES[2:])
    assert kept.negatives[:2] == ("mine", PASSAGES[2])
    assert len(set(kept.negatives)) == 7
    assert tally.negatives == 10, "those that were there are not counted"


def test_scores_and_lists_of_the_old_negatives_go_and_the_rest_of_the_line_stays(mined: Mine, ranker: Ranker) -> None:
    others: dict[str, JsonValue] = {"id": 7, "pos_id": [3], "neg_id": [4, 5], "prompt": "find"}
    given = Example("red fish", (PASSAGES[0],), ("a", "b"), (2.0,), (1.0, 0.5), others)
    [example], _ = mined(ranker, ALL, given)
    assert example.others == {"id": 7, "pos_id": [3], "prompt": "find"}
    assert (example.positive_scores, example.negative_scores) == ((), ())


def test_texts_without_a_vector_are_counted_and_cost_no_record(mined: Mine, ranker: Ranker) -> None:
    examples = [
        EXAMPLES[0],
        Example(WORDLESS, (PASSAGES[0],)),
        Example("red fish", (WORDLESS,)),
        Example("red fish", (WORDLESS, PASSAGES[1])),
    ]
    found, tally = mined(ranker, replace(ALL, margin=Margin(amount=2)), *examples)
    assert [bool(example.negatives) for example in found] == [True, False, False, True]
    assert (tally.queries, tally.unknown, tally.unscored, tally.bare) == (4, 1, 1, 2)


def test_a_file_without_records_is_an_error(mined: Mine, ranker: Ranker) -> None:
    with pytest.raises(SourceError, match=r"given\.jsonl: holds no query with a positive"):
        mined(ranker, ALL)


@pytest.mark.parametrize("margin", [None, Margin(share=0.05)])
def test_the_size_of_a_batch_changes_nothing(tmp_path: Path, ranker: Ranker, margin: Margin | None) -> None:
    outs = [tmp_path / f"{batch}.jsonl" for batch in (1, 7, 64)]
    with Records(write(tmp_path / "given.jsonl", *EXAMPLES)) as records:
        for batch, out in zip((1, 7, 64), outs, strict=True):
            mine(records, out, ranker, MiningOptions(ranks=RankWindow(3, 60), draw=6, margin=margin, batch=batch))
    assert len({out.read_bytes() for out in outs}) == 1


KILLED = """
import io, json, os, signal, sys
from pathlib import Path
from indexer.bm25 import Bm25Ranker
from indexer.mine import MiningOptions, mine
from indexer.negatives import RankWindow
from model.records import Records

def die(tally):
    if tally.queries > 12:
        os.kill(os.getpid(), signal.SIGKILL)

ranker = Bm25Ranker(json.loads(Path(sys.argv[1]).read_text()), io.BytesIO())
with Records(Path(sys.argv[2])) as records:
    mine(records, Path(sys.argv[3]), ranker, MiningOptions(ranks=RankWindow(2, 40), draw=5, batch=4), die)
"""


def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    passages, given = tmp_path / "passages.json", write(tmp_path / "given.jsonl", *EXAMPLES)
    passages.write_text(json.dumps(PASSAGES))
    broken, unbroken = tmp_path / "broken.jsonl", tmp_path / "unbroken.jsonl"
    script = [sys.executable, "-c", KILLED, str(passages), str(given), str(broken)]
    assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
    assert not broken.exists()
    ranker = Bm25Ranker(PASSAGES, io.BytesIO())
    options = MiningOptions(ranks=RankWindow(2, 40), draw=5, batch=4)
    seen: list[tuple[int, int]] = []
    with Records(given) as records:
        resumed = mine(records, broken, ranker, options, lambda tally: seen.append((tally.resumed, tally.queries)))
        mine(records, unbroken, ranker, options)
    assert broken.read_bytes() == unbroken.read_bytes()
    assert (resumed.resumed, resumed.queries) == (12, 11)
    assert seen == [(12, 4), (12, 8), (12, 11)]


@pytest.mark.parametrize("change", [{"draw": 6}, {"seed": 1}, {"margin": Margin()}, {"hidden": frozenset({1})}])
def test_a_broken_run_does_not_go_on_with_other_options(
    tmp_path: Path, ranker: Ranker, change: dict[str, object]
) -> None:
    def stop(tally: Tally) -> None:
        raise KeyboardInterrupt

    with Records(write(tmp_path / "given.jsonl", *EXAMPLES)) as records:
        with pytest.raises(KeyboardInterrupt):
            mine(records, tmp_path / "out.jsonl", ranker, ALL, stop)
        with pytest.raises(FileExistsError, match=next(iter(change))):
            mine(records, tmp_path / "out.jsonl", ranker, replace(ALL, **change))  # type: ignore[arg-type]  # of several types
        assert mine(records, tmp_path / "out.jsonl", ranker, ALL).queries == len(EXAMPLES)


# ---- dupmae index mine


Dupmae = Callable[..., Result]


@pytest.fixture
def dupmae(data: Path, tiny_artifact: Artifact) -> Dupmae:
    """Runs `dupmae index mine ARGUMENTS` on the index; what it raises is raised here."""
    settings = IndexSettings(data=data, threads=1, index="words")
    kept = data / "models" / tiny_artifact.fingerprint
    if not kept.exists():
        keep_artifact(settings, tiny_artifact)

    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, ["mine", *map(str, arguments)], obj=settings, catch_exceptions=False)

    return run


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    """The documents as a BEIR folder; its last judged query has no positive."""
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": document.id, "title": document.title, "text": document.text} for document in DOCUMENTS]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "oops\n")
    queries = [{"_id": f"q{number}", "text": example.query} for number, example in enumerate(EXAMPLES)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    train = [(f"q{number}", f"d{number}", int(number < 9)) for number in range(10)]
    for split, judgements in {"train": train, "test": [("q9", "d40", 1), ("q9", "d41", 0)]}.items():
        lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in judgements)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines))
    return folder


def test_a_judged_folder_becomes_a_training_file(dupmae: Dupmae, beir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    result = dupmae(beir, out, "--ranks", "1:80", "--draw", 80, "--margin", "none", "--exclude-split", "test", "--json")
    examples = list(read_examples(out))
    assert [example.query for example in examples] == [example.query for example in EXAMPLES[:9]]
    assert [example.positives for example in examples] == [(text,) for text in PASSAGES[:9]]
    hidden = {PASSAGES[40], PASSAGES[41]}
    assert all(set(PASSAGES) - set(e.negatives) == {*e.positives, *hidden} for e in examples)
    facts = json.loads(result.stdout)
    assert (facts["queries"], facts["negatives"], facts["short"]) == (9, 9 * 77, 9)
    assert facts["left_out"] == {"bad documents": 1, "judged queries without a positive": 1}


def test_bm25_finds_the_same_in_the_index_and_in_the_documents_it_was_built_of(
    dupmae: Dupmae, beir: Path, tmp_path: Path
) -> None:
    given, outs = write(tmp_path / "given.jsonl", *EXAMPLES), [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    options = ("--method", "bm25", "--ranks", "1:80", "--draw", "80")
    assert dupmae(given, outs[0], *options).exit_code == 0
    assert "Left out: 1 bad documents." in dupmae(given, outs[1], *options, "--documents", beir).stdout
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert all(example.negatives for example in read_examples(outs[0]))


def test_the_summary_says_what_the_margin_left_out_and_what_is_missing(dupmae: Dupmae, tmp_path: Path) -> None:
    given = write(tmp_path / "given.jsonl", *EXAMPLES, Example(WORDLESS, ("a",)), Example("red", (WORDLESS,)))
    said = dupmae(given, tmp_path / "out.jsonl", "--ranks", "1:80").stdout
    assert "out.jsonl: 25 queries, " in said
    assert re.search(r"Too close to a positive: [\d,]+ of [\d,]+ hits \(\d+\.\d%\)\.", said)
    assert re.search(r"Fewer than 15 negatives: \d+ queries\.", said)
    assert "A query that the model has no vector for: 1 queries." in said
    assert "No positive that the model has a vector for, and so no margin: 1 queries." in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ranks", "9:3"], "'9:3' is not FIRST:LAST"),
        (["--margin", "much"], "'much' is neither a share such as 5%"),
        (["--method", "bm25", "--margin", "5%"], "bm25 has no score of a positive"),
        (["--method", "rrf", "--margin", "1"], "rrf has no score of a positive"),
        (["--documents", "corpus.jsonl"], "fused searches an index; only bm25 takes documents"),
        (["--split", "train"], "is no BEIR folder, and only that has splits"),
        (["--exclude-split", "test"], "is no BEIR folder, and only that has splits"),
        (["--method", "splade"], "is not one of"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_read(
    dupmae: Dupmae, tmp_path: Path, options: list[str], said: str
) -> None:
    result = dupmae(tmp_path / "nowhere.jsonl", tmp_path / "out.jsonl", *options)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", " ").split())


def test_an_index_a_file_or_a_document_that_is_not_there_is_an_error_that_names_it(
    dupmae: Dupmae, tmp_path: Path
) -> None:
    given, out = write(tmp_path / "given.jsonl", *EXAMPLES), tmp_path / "out.jsonl"
    with pytest.raises(IndexNotFound, match="'nope' has no published build"):
        dupmae(given, out, "--index", "nope")
    with pytest.raises(IndexNotFound, match="'nope' has no published build"):
        dupmae(given, out, "--index", "nope", "--method", "bm25")
    with pytest.raises(SourceError, match=r"nowhere\.jsonl"):
        dupmae(tmp_path / "nowhere.jsonl", out)
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(SourceError, match="none of 0 passages"):
        dupmae(given, out, "--method", "bm25", "--documents", empty)
    assert not list(tmp_path.glob("out.jsonl*"))


def test_a_finished_file_is_not_written_over_unasked(dupmae: Dupmae, tmp_path: Path) -> None:
    given, out = write(tmp_path / "given.jsonl", *EXAMPLES), tmp_path / "out.jsonl"
    out.write_text("precious")
    with pytest.raises(FileExistsError, match=r"exists already; .* --restart"):
        dupmae(given, out)
    assert dupmae(given, out, "--restart").exit_code == 0
    assert len(list(read_examples(out))) == len(EXAMPLES)


def test_without_bm25s_mining_names_what_to_install_and_an_index_is_mined_all_the_same(
    dupmae: Dupmae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "indexer.bm25", raising=False)
    monkeypatch.setitem(sys.modules, "bm25s", None)
    given = write(tmp_path / "given.jsonl", *EXAMPLES)
    with pytest.raises(MissingExtra, match=r"bm25s is not installed: pip install 'dupmae-search\[train\]'"):
        dupmae(given, tmp_path / "out.jsonl", "--method", "bm25")
    assert dupmae(given, tmp_path / "out.jsonl").exit_code == 0


def test_the_help_has_an_example(dupmae: Dupmae) -> None:
    assert "Example: dupmae index mine" in " ".join(dupmae("--help").stdout.split())
