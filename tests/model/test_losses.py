"""The losses of fine-tuning against their definitions, query by query and text by text."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from model.candidates import key
from model.checkpoint import Checkpoint, load
from model.distributed import Ranks
from model.dupmae import Sparse
from model.example import to_line
from model.finetune import Encoded, contrast, distill, finetune, flops, scores, unlike
from model.lexicon import Lexicon
from model.options import FinetuneOptions
from model.rarity import FEW_PASSAGES, USUAL_NATS
from model.records import Example, Records
from model.teaching import Teaching, teach
from model.warm_start import calibrate_terms
from tests.model.training import SENTENCES, log, save_bert


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


def test_the_fused_score_sums_over_the_terms_that_the_document_keeps() -> None:
    mu_q, mu_d = random(5).abs(), random(5, seed=1).abs()
    kept = mu_d.topk(2).indices  # I_d of section 3.3; the query keeps all
    by_hand = sum(mu_q[i].item() * mu_d[i].item() for i in kept.tolist())
    document = Encoded(random(1, 3), Sparse(kept[None], mu_d[kept][None]).dense(5))
    cls, ot = scores(Encoded(random(1, 3, seed=2), mu_q[None]), document)
    assert ot.item() == pytest.approx(by_hand)
    assert cls.item() == pytest.approx(sum((random(3) * random(3, seed=2)).tolist()))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), queries=st.integers(1, 5), columns=st.integers(1, 9))
def test_contrast_is_cross_entropy_without_the_ignored_columns(seed: int, queries: int, columns: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    target = torch.randint(columns, (queries,), generator=drawn)
    ignored = torch.rand(queries, columns, generator=drawn) < 0.5
    ignored[torch.arange(queries), target] = False
    score = random(queries, columns, seed=seed).requires_grad_()
    by_hand = torch.zeros(())
    for row, right, out in zip(score, target.tolist(), ignored, strict=True):
        left = [column for column in range(columns) if not out[column]]
        by_hand = by_hand + F.cross_entropy(row[left], torch.tensor(left.index(right)))
    ours = contrast(score, target, ignored)
    torch.testing.assert_close(ours, by_hand)
    slopes = (torch.autograd.grad(loss, score)[0] for loss in (ours, by_hand))
    torch.testing.assert_close(*slopes)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_distillation_is_the_divergence_from_the_teacher_over_each_query_s_passages(
    seed: int, sizes: list[int]
) -> None:
    drawn, most = torch.Generator().manual_seed(seed), max(sizes)
    score, teacher = random(len(sizes), 6, seed=seed).requires_grad_(), random(len(sizes), most, seed=seed + 1)
    group = torch.stack([torch.randperm(6, generator=drawn)[:most] for _ in sizes])
    for row, size in enumerate(sizes):
        group[row, size:], teacher[row, size:] = -1, 0.0
    by_hand = torch.zeros(())
    for row, size in enumerate(sizes):
        ours = score[row, group[row, :size]].log_softmax(0)
        by_hand = by_hand + F.kl_div(ours, teacher[row, :size].softmax(0), reduction="sum")
    found = distill(score.gather(1, group.clamp(min=0)), teacher, group < 0)
    torch.testing.assert_close(found, by_hand, atol=1e-5, rtol=1e-4)
    slopes = (torch.autograd.grad(loss, score)[0] for loss in (found, by_hand))
    torch.testing.assert_close(*slopes, atol=1e-5, rtol=1e-4)


def test_flops_is_the_squared_mean_of_each_term_over_the_rows_that_count() -> None:
    ot = torch.tensor([[1.0, 0.0, 4.0], [3.0, 0.0, 0.0], [9.0, 9.0, 9.0]])
    assert flops(ot, torch.tensor([1.0, 1.0, 0.0])).item() == ((1 + 3) / 2) ** 2 + 0 + (4 / 2) ** 2


def test_bags_are_as_far_from_what_is_wanted_as_from_nothing_when_they_are_empty() -> None:
    wanted = torch.tensor([[3.0, 4.0, 0.0], [3.0, 4.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    ot = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0], [3.0, 4.0, 5.0], [1.0, 0.0, 0.0]])
    assert unlike(ot, wanted).tolist() == [0.0, 1.0, 1.0, 0.0]


# ---- a whole step, from the texts and the network it began with

RECORDS = [
    Example(" ".join(s.split()[::3]), (s,), (SENTENCES[i - 1], f"a horse {s[:12]}"), (3.0,), (1.0, -1.0))
    for i, s in enumerate(SENTENCES)
]
# asked twice: the second record's answer scores best, but is no rival to the first one's, which comes next
RECORDS[0] = Example("king fish", RECORDS[4].negatives[1:], RECORDS[0].negatives, (2.0,), (0.0, -2.0))
RECORDS[1] = Example("king fish", ("king fish",), RECORDS[1].negatives, (2.0,), (0.0, -2.0))


@pytest.fixture
def start(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Checkpoint:
    torch.manual_seed(0)
    checkpoint = load(save_bert(tiny_tokenizer, tmp_path / "bert"))
    calibrate_terms(checkpoint, SENTENCES, active=20)
    return checkpoint


@pytest.mark.parametrize("rarity_weight", [None, 0.7])
def test_a_step_s_losses_are_those_of_its_texts_one_by_one(
    start: Checkpoint, rarity_weight: float | None, tmp_path: Path
) -> None:
    start = start._replace(facts=start.facts.model_copy(update={"rarity_weight": rarity_weight}))
    path = tmp_path / "train.jsonl"
    path.write_text("".join(to_line(record) + "\n" for record in RECORDS))
    options = FinetuneOptions(
        steps=1,
        batch_size=len(RECORDS),
        negatives=2,  # all of each record's
        document_tokens=64,
        k_query=start.model.encoder.vocabulary_size,
        k_document=12,
        contrast_weight=0.7,
        part_weight=0.2,
        distill_weight=0.4,
        temperature=2.0,
        query_sparsity=0.05,
        document_sparsity=0.02,
    )
    wanted = step_by_hand(start, options)
    finetune(start, [Records(path)], options, Ranks(0, 1, torch.device("cpu")), tmp_path / "run")
    for name, value in wanted.items():
        assert log(tmp_path / "run", name) == [pytest.approx(value, rel=1e-4)], name


@torch.no_grad()
def step_by_hand(start: Checkpoint, options: FinetuneOptions) -> dict[str, float]:
    passages = list(dict.fromkeys(text for r in RECORDS for text in (*r.positives, *r.negatives)))
    documents = {text: encoded(start, text, options.k_document) for text in passages}
    queries = [encoded(start, record.query, options.k_query) for record in RECORDS]
    answers = {(record.query, text) for record in RECORDS for text in record.positives}
    sums = dict.fromkeys(("fused", "cls", "ot", "distill", "accuracy"), 0.0)
    for record, (q_cls, bag) in zip(RECORDS, queries, strict=True):
        q_ot = {i: value * rarity(start, documents, i) for i, value in bag.items()}
        cls = {text: sum(a * b for a, b in zip(q_cls, d_cls, strict=True)) for text, (d_cls, _) in documents.items()}
        ot = {text: sum(q_ot.get(i, 0.0) * value for i, value in d_ot.items()) for text, (_, d_ot) in documents.items()}
        fused = {text: cls[text] + ot[text] for text in passages}
        (right,) = record.positives
        rivals = [text for text in passages if text == right or (record.query, text) not in answers]
        for name, score in (("fused", fused), ("cls", cls), ("ot", ot)):
            sums[name] -= log_shares(score, rivals)[right]
        sums["accuracy"] += max(rivals, key=fused.__getitem__) == right
        own = [right, *record.negatives]
        given = dict(zip(own, (*record.positive_scores, *record.negative_scores), strict=True))
        theirs = log_shares({text: score / options.temperature for text, score in given.items()}, own)
        ours = log_shares(fused, own)
        sums["distill"] += sum(math.exp(theirs[text]) * (theirs[text] - ours[text]) for text in own)
    means = {name: value / len(RECORDS) for name, value in sums.items()}
    bags = [ot for _, ot in queries], [ot for _, ot in documents.values()]
    cost_of_queries, cost_of_documents = (expected_cost(each, start.model.encoder.vocabulary_size) for each in bags)
    total = options.contrast_weight * (means["fused"] + options.part_weight * (means["cls"] + means["ot"]))
    total += options.distill_weight * means["distill"]
    total += options.query_sparsity * cost_of_queries + options.document_sparsity * cost_of_documents
    terms = [sum(map(len, each)) / len(each) for each in bags]
    return {**means, "total": total, "query_terms": terms[0], "document_terms": terms[1]}


def rarity(start: Checkpoint, documents: dict[str, tuple[list[float], dict[int, float]]], term: int) -> float:
    """What an index of the right passages would multiply a query's term by."""
    if (weight := start.facts.rarity_weight) is None:
        return 1.0
    n = sum(term in documents[record.positives[0]][1] for record in RECORDS)
    counted, N = math.log(1 + (len(RECORDS) - n + 0.5) / (n + 0.5)), len(RECORDS)
    return weight * (N * counted + FEW_PASSAGES * USUAL_NATS) / (N + FEW_PASSAGES)


def test_a_step_taught_by_two_systems_learns_each_side_from_its_own_and_the_sum_from_their_sum(
    start: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(to_line(record) + "\n" for record in RECORDS))
    records, width = Records(path), start.model.encoder.project.out_features
    teach(records, records, lambda *sides: np.array([unit(t, width) for side in sides for t in side]), "a digest")
    options = FinetuneOptions(
        steps=1,
        batch_size=len(RECORDS),
        negatives=2,
        document_tokens=64,
        k_query=start.model.encoder.vocabulary_size,
        k_document=12,
        contrast_weight=0,
        query_sparsity=0,
        document_sparsity=0,
        teach_weight=0.7,
        part_weight=0.2,
        align_weight=0.3,
        words_weight=0.6,
        words_scale=9,
    )
    wanted = taught_by_hand(start, options, Teaching.of(records), Lexicon.of(start.tokenizer, [records]))
    finetune(start, [records], options, Ranks(0, 1, torch.device("cpu")), tmp_path / "run")
    for name, value in wanted.items():
        assert log(tmp_path / "run", name) == [pytest.approx(value, rel=1e-3)], name


@torch.no_grad()
def taught_by_hand(
    start: Checkpoint, options: FinetuneOptions, teaching: Teaching, lexicon: Lexicon
) -> dict[str, float]:
    passages = list(dict.fromkeys(text for r in RECORDS for text in (*r.positives, *r.negatives)))
    documents = {text: encoded(start, text, options.k_document) for text in passages}
    queries = [encoded(start, record.query, options.k_query) for record in RECORDS]
    sums = dict.fromkeys(("teach", "teach_cls", "teach_ot"), 0.0)
    for record, (q_cls, q_ot) in zip(RECORDS, queries, strict=True):
        cls = {text: sum(a * b for a, b in zip(q_cls, d_cls, strict=True)) for text, (d_cls, _) in documents.items()}
        ot = {text: sum(q_ot.get(i, 0.0) * value for i, value in d_ot.items()) for text, (_, d_ot) in documents.items()}
        said = teaching.said(np.array([key(record.query)]), np.array([key(text) for text in passages]))
        cosine = {text: 20 * value for text, value in zip(passages, said.cosine[0].tolist(), strict=True)}
        words = {text: 9 * value for text, value in zip(passages, said.words[0].tolist(), strict=True)}
        both, fused = ({text: one[text] + two[text] for text in passages} for one, two in ((cosine, words), (cls, ot)))
        for name, teacher, student in (("teach", both, fused), ("teach_cls", cosine, cls), ("teach_ot", words, ot)):
            theirs, ours = log_shares(teacher, passages), log_shares(student, passages)
            sums[name] += sum(math.exp(theirs[text]) * (theirs[text] - ours[text]) for text in passages)
    means = {name: value / len(RECORDS) for name, value in sums.items()}
    means["align"] = mean_distance(
        teaching, [(r.query, cls) for r, (cls, _) in zip(RECORDS, queries, strict=True)]
    ) + mean_distance(teaching, [(text, cls) for text, (cls, _) in documents.items()])
    asked = [(record.query, ot) for record, (_, ot) in zip(RECORDS, queries, strict=True)]
    means["words"] = mean_unlikeness(start, lexicon, asked) + mean_unlikeness(
        start, lexicon, [(text, ot) for text, (_, ot) in documents.items()]
    )
    total = options.teach_weight * (means["teach"] + options.part_weight * (means["teach_cls"] + means["teach_ot"]))
    total += options.align_weight * means["align"] + options.words_weight * means["words"]
    return {**means, "total": total}


def mean_unlikeness(start: Checkpoint, lexicon: Lexicon, texts: list[tuple[str, dict[int, float]]]) -> float:
    total = 0.0
    for text, ot in texts:
        wanted = lexicon.bags(start.tokenizer(text, return_tensors="pt")["input_ids"])[0].tolist()
        away = sum((ot.get(n, 0.0) - value) ** 2 for n, value in enumerate(wanted))
        total += away / sum(value**2 for value in wanted) if any(wanted) else 0.0
    return total / len(texts)


def mean_distance(teaching: Teaching, texts: list[tuple[str, list[float]]]) -> float:
    wanted = teaching.vectors(np.array([key(text) for text, _ in texts])).tolist()
    pairs = ((cls, vector) for (_, cls), vector in zip(texts, wanted, strict=True))
    return sum(math.dist([x / 20**0.5 for x in cls], vector) ** 2 for cls, vector in pairs) / len(texts)


def unit(text: str, width: int) -> NDArray[np.float32]:
    vector = np.random.default_rng(key(text)).normal(size=width).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def encoded(start: Checkpoint, text: str, k: int) -> tuple[list[float], dict[int, float]]:
    """[CLS] vector and the kept words of one text alone."""
    tokens = start.tokenizer(text, return_tensors="pt")
    cls, bag = start.model.encoder(tokens["input_ids"], tokens["attention_mask"], k)
    kept = zip(bag.indices[0].tolist(), bag.values[0].tolist(), strict=True)
    return cls[0].tolist(), {index: value for index, value in kept if value > 0}


def log_shares(score: dict[str, float], texts: list[str]) -> dict[str, float]:
    whole = math.log(sum(math.exp(score[text]) for text in texts))
    return {text: score[text] - whole for text in texts}


def expected_cost(bags: list[dict[int, float]], vocabulary: int) -> float:
    return sum((sum(bag.get(i, 0.0) for bag in bags) / len(bags)) ** 2 for i in range(vocabulary))
