"""What an export costs in ranking: the figures, the budget, and what happens over it."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import indexer.measures
from model.artifact import Artifact
from model.dupmae import FusedEncoder
from model.encoder import Encoder
from model.estimate import Estimate
from model.export import Agreement, ExportError, Facts, default_facts, export
from model.judge import encode
from model.lines import SourceError
from model.quality import Change, change, over_budget
from model.rarity import Rarity
from model.records import Example, Records, to_line
from tests.conftest import TEXTS, WORDS

LIMITS = {"k_query": 10, "k_document": 20, "max_query_tokens": 12, "max_document_tokens": 24}

Write = Callable[[str, list[Example]], Records]


def phrases(count: int, length: int, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    return list(dict.fromkeys(" ".join(draw.choice(WORDS.split(), 2 + n % length)) for n in range(count)))


@pytest.fixture(scope="module")
def examples(tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """Records whose positives are what the network itself finds best: it is right everywhere, and any harm shows."""
    queries, passages = phrases(40, 8, 1), phrases(150, 20, 0)
    asked = encode(tiny_network, tiny_tokenizer, queries, (LIMITS["max_query_tokens"], LIMITS["k_query"]))
    found = encode(tiny_network, tiny_tokenizer, passages, (LIMITS["max_document_tokens"], LIMITS["k_document"]))
    bags = [
        torch.zeros(len(vectors.cls), tiny_network.vocabulary_size).scatter(1, vectors.indices, vectors.values)
        for vectors in (asked, found)
    ]
    best = (asked.cls @ found.cls.t() + bags[0] @ bags[1].t()).topk(3).indices.tolist()
    return [
        Example(query, tuple(passages[n] for n in rows), tuple(p for n, p in enumerate(passages) if n not in rows))
        for query, rows in zip(queries, best, strict=True)
    ]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    (tmp_path / "dev").mkdir()

    def records(name: str, examples: list[Example]) -> Records:
        (tmp_path / "dev" / name).write_text("".join(to_line(example) + "\n" for example in examples))
        return Records(tmp_path / "dev" / name)

    return records


def facts(network: FusedEncoder, **others: object) -> Facts:
    return default_facts("tiny", network).model_copy(update={**LIMITS, **others})


def with_limits(artifact: Artifact, **others: object) -> Encoder:
    manifest = artifact.manifest.model_copy(update={**LIMITS, "rarity_weight": None, **others})
    return Encoder(Artifact(artifact.path, manifest), threads=1)


def test_float32_ranks_as_the_network_does(
    tiny_network: FusedEncoder,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tiny_artifact: Artifact,
    examples: list[Example],
    write: Write,
) -> None:
    found = change(tiny_network, tiny_tokenizer, with_limits(tiny_artifact), write("dev.jsonl", examples))
    assert found == Change("dev.jsonl", 40, 150, 1.0, 1.0, Estimate(mean=0, low=0, high=0))


@pytest.mark.parametrize("rarity_weight", [None, 2.0])
def test_the_artifact_is_judged_as_brute_force_judges_it(
    rarity_weight: float | None,
    tiny_network: FusedEncoder,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tiny_artifact_int8: Artifact,
    examples: list[Example],
    write: Write,
) -> None:
    exported = with_limits(tiny_artifact_int8, rarity_weight=rarity_weight)
    found = change(tiny_network, tiny_tokenizer, exported, write("dev.jsonl", examples))
    passages = list(dict.fromkeys(text for e in examples for text in (*e.positives, *e.negatives)))
    documents = dict(zip(passages, exported.encode_documents(passages), strict=True))
    queries = [encoding.vector for encoding in exported.encode_queries([e.query for e in examples])]
    if rarity_weight:
        vocabulary = exported.artifact.manifest.vocabulary_size
        rarity = Rarity.counted((each.vector for each in documents.values()), vocabulary, rarity_weight)
        queries = list(map(rarity.weigh, queries))
    run = {
        e.query: {text: query.score(document.vector).score for text, document in documents.items()}
        for e, query in zip(examples, queries, strict=True)
    }
    wanted = indexer.measures.judge({e.query: dict.fromkeys(e.positives, 1) for e in examples}, run)[:, 0].mean()
    assert 0.5 < wanted < 1
    assert found.artifact == pytest.approx(wanted)
    assert found.difference.mean == pytest.approx(found.artifact - found.network)
    assert found.difference.low < found.difference.mean < found.difference.high < 0


def test_both_are_asked_with_the_prompts_of_the_artifact(
    tiny_network: FusedEncoder,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tiny_artifact: Artifact,
    examples: list[Example],
    write: Write,
) -> None:
    exported = with_limits(tiny_artifact, query_prompt="the king : ", document_prompt="water fire ")
    found = change(tiny_network, tiny_tokenizer, exported, write("dev.jsonl", examples))
    assert found.network < 1
    assert found.artifact == pytest.approx(found.network)


def test_what_holds_no_word_is_left_out(
    tiny_network: FusedEncoder,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tiny_artifact: Artifact,
    examples: list[Example],
    write: Write,
) -> None:
    wordless = [Example("\u2603", ("water",)), Example("fire", ("\u2603\u2603",), ("wine",))]
    found = change(tiny_network, tiny_tokenizer, with_limits(tiny_artifact), write("dev.jsonl", examples + wordless))
    assert (found.queries, found.passages) == (40, 152)
    with pytest.raises(SourceError, match=r"none\.jsonl: no record has a query and a positive with a word"):
        change(tiny_network, tiny_tokenizer, with_limits(tiny_artifact), write("none.jsonl", wordless))


def changed(mean: float, high: float, name: str = "dev") -> Change:
    return Change(name, 100, 1000, 0.5, 0.5 + mean, Estimate(mean=mean, low=2 * mean - high, high=high))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ([], None),
        ([changed(0.02, 0.03)], None),
        ([changed(-0.0019, -0.001)], None),
        ([changed(-0.0021, 0.001)], "nDCG@10 changes by -0.0021 in the mean over dev, budget -0.002"),
        ([changed(-0.0049, -0.001), changed(0.002, 0.004)], None),
        ([changed(-0.006, 0.001), changed(0.006, 0.009)], None),
        ([changed(-0.006, -0.001), changed(0.006, 0.009)], "dev: network 0.5000, artifact 0.4940, change -0.0060"),
    ],
)
def test_the_budget_is_one_of_the_mean_and_one_of_each_file(changes: list[Change], problem: str | None) -> None:
    found = over_budget(changes)
    assert found is None if problem is None else found is not None and problem in found


def test_what_the_export_changed_is_said_and_kept_and_is_no_part_of_the_fingerprint(
    tiny_network: FusedEncoder,
    tiny_tokenizer: PreTrainedTokenizerFast,
    examples: list[Example],
    write: Write,
    tmp_path: Path,
) -> None:
    said: list[str] = []
    judged = [write("one.jsonl", examples[:20]), write("two.jsonl", examples[20:])]
    known = facts(tiny_network, evaluation={"before": {"nDCG@10": 0.4}})
    artifacts = [
        export(
            tiny_network,
            tiny_tokenizer,
            tmp_path / name,
            precision="fp32",
            facts=known,
            card="",
            texts=TEXTS,
            judged=files,
            say=said.append,
        )
        for name, files in (("judged", judged), ("not", []))
    ]
    assert said == [
        f"{name}.jsonl: network 1.0000, artifact 1.0000, change +0.0000 [+0.0000, +0.0000]; 20 queries, 150 passages"
        for name in ("one", "two")
    ]
    evaluation = Artifact.open(tmp_path / "judged").manifest.evaluation
    assert evaluation == artifacts[0].manifest.evaluation
    assert list(evaluation) == ["before", "one.jsonl (export)", "two.jsonl (export)"]
    assert evaluation["two.jsonl (export)"] == {
        "queries": 20,
        "passages": 150,
        "network nDCG@10": 1,
        "fused nDCG@10": 1,
        "change": 0,
        "change low": 0,
        "change high": 0,
    }
    assert artifacts[0].fingerprint == artifacts[1].fingerprint


def test_a_damaged_quantization_is_refused_and_leaves_nothing(
    tiny_network: FusedEncoder,
    tiny_tokenizer: PreTrainedTokenizerFast,
    examples: list[Example],
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("model.quantize.LIMIT", 1)  # weights of -1, 0 and 1
    monkeypatch.setattr("model.export.BUDGETS", {"int8": Agreement(np.inf, np.inf, 0)})
    complaint = (
        r"dev\.jsonl: network 1\.0000, artifact 0\.\d+, change -.*budget -0\.005; .*in the mean.*wider --precision"
    )
    with pytest.raises(ExportError, match=complaint):
        export(
            tiny_network,
            tiny_tokenizer,
            tmp_path / "never",
            precision="int8",
            facts=facts(tiny_network),
            card="",
            texts=TEXTS,
            judged=[write("dev.jsonl", examples)],
        )
    assert [path.name for path in tmp_path.iterdir()] == ["dev"]


def test_a_text_that_the_artifact_has_no_vector_for_is_named(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, write: Write, tmp_path: Path
) -> None:
    network = copy.deepcopy(tiny_network)
    with torch.no_grad():
        network.terms.gain.zero_()
        network.terms.bias.fill_(-1)
        king = tiny_tokenizer.get_vocab()["king"]
        network.terms.gain[king] = 1
        mu = {text: _mu(tiny_network, tiny_tokenizer, text, king) for text in ("fire", "king", "water")}
        loud, *_, quiet = sorted(mu, key=mu.__getitem__, reverse=True)
        network.terms.bias[king] = -(mu[loud] + mu[quiet]) / 2
    with pytest.raises(ExportError, match=rf"dev\.jsonl: the artifact has no vector for '{quiet}': no word in it"):
        export(
            network,
            tiny_tokenizer,
            tmp_path / "never",
            precision="fp32",
            facts=facts(network),
            card="",
            texts=[loud],
            judged=[write("dev.jsonl", [Example(loud, (quiet,))])],
        )
    assert [path.name for path in tmp_path.iterdir()] == ["dev"]


def test_two_files_of_one_name_are_refused(
    tiny_network: FusedEncoder,
    tiny_tokenizer: PreTrainedTokenizerFast,
    examples: list[Example],
    write: Write,
    tmp_path: Path,
) -> None:
    with pytest.raises(ExportError, match=r"two files to judge on are called dev\.jsonl"):
        export(
            tiny_network,
            tiny_tokenizer,
            tmp_path / "never",
            precision="fp32",
            facts=facts(tiny_network),
            card="",
            texts=TEXTS,
            judged=[write("dev.jsonl", examples)] * 2,
        )


@torch.no_grad()
def _mu(network: FusedEncoder, tokenizer: PreTrainedTokenizerFast, text: str, entry: int) -> float:
    """What the vocabulary head gives an entry of a text, before gain and bias."""
    ids = tokenizer(text, return_tensors="pt")
    lpu = network.lpu
    features = lpu.features(network.hidden(ids["input_ids"], ids["attention_mask"]))[0, 1:-1]
    return float((features @ lpu.weight[entry] + lpu.bias[entry]).max())
