"""nDCG@10 on held-out records, against brute force over the vectors and the measure of `ir-measures`."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

import indexer.measures
from model.dupmae import FusedEncoder
from model.judge import judge, ndcg
from model.options import FinetuneOptions
from model.records import Example
from model.vector import FusedVector
from tests.conftest import WORDS

OPTIONS = FinetuneOptions(query_tokens=6, document_tokens=16, k_query=10, k_document=20)


def phrases(count: int, length: int, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS.split(), 1 + n % length)) for n in range(count)]


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """More queries and passages than are encoded at once; some passages in several records."""
    passages, queries = phrases(80, 25, 0), phrases(40, 9, 1)
    chosen = [np.random.default_rng(n).choice(passages, 1 + n % 5 + 12, replace=False).tolist() for n in range(40)]
    return [
        Example(query, tuple(texts[: 1 + n % 13]), tuple(texts[1 + n % 13 :]))
        for n, (query, texts) in enumerate(zip(queries, chosen, strict=True))
    ]


@torch.no_grad()
def vector(
    network: FusedEncoder, tokenizer: PreTrainedTokenizerFast, text: str, limits: tuple[int, int]
) -> FusedVector:
    tokens = tokenizer(text, truncation=True, max_length=limits[0], return_tensors="pt")
    cls, bag = network(tokens["input_ids"], tokens["attention_mask"], limits[1])
    values, order = bag.values[0].numpy(), bag.indices[0].argsort().numpy()
    order = order[values[order] > 0]
    return FusedVector(cls[0].numpy(), bag.indices[0].numpy()[order], values[order])


def test_each_part_and_the_sum_are_judged_as_brute_force_judges_them(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, examples: list[Example]
) -> None:
    texts = {text for example in examples for text in (*example.positives, *example.negatives)}
    documents = {text: vector(tiny_network, tiny_tokenizer, text, (16, 20)) for text in texts}
    runs: dict[str, dict[str, dict[str, float]]] = {"fused": {}, "cls": {}, "ot": {}}
    for number, example in enumerate(examples):
        query = vector(tiny_network, tiny_tokenizer, example.query, (6, 10))
        scored = {text: query.score(document) for text, document in documents.items()}
        for name, run in runs.items():
            run[str(number)] = {t: getattr(parts, {"fused": "score"}.get(name, name)) for t, parts in scored.items()}
    qrels = {str(n): dict.fromkeys(example.positives, 1) for n, example in enumerate(examples)}
    wanted = {name: indexer.measures.judge(qrels, run)[:, 0].mean() for name, run in runs.items()}
    assert judge(tiny_network, tiny_tokenizer, examples, OPTIONS) == pytest.approx(wanted, abs=1e-4)
    assert len({round(figure, 3) for figure in wanted.values()}) == 3


@settings(max_examples=100, deadline=None)
@given(st.permutations(range(14)), st.sets(st.integers(0, 13), min_size=1))
def test_ndcg_is_that_of_ir_measures(ranking: list[int], right: set[int]) -> None:
    run = {"q": {str(passage): float(-rank) for rank, passage in enumerate(ranking)}}
    (wanted,) = indexer.measures.judge({"q": {str(passage): 1 for passage in right}}, run)[:, 0]
    assert ndcg(ranking[:10], [*right]) == pytest.approx(wanted)


def test_fewer_passages_than_are_looked_at_are_no_matter(
    tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    figures = judge(tiny_network, tiny_tokenizer, [Example("the king", ("the king of the island",))], OPTIONS)
    assert figures == {"fused": 1.0, "cls": 1.0, "ot": 1.0}


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(
    training: bool, tiny_network: FusedEncoder, tiny_tokenizer: PreTrainedTokenizerFast, examples: list[Example]
) -> None:
    before = {name: value.clone() for name, value in tiny_network.state_dict().items()}
    tiny_network.train(training)
    try:
        first, again = (judge(tiny_network, tiny_tokenizer, examples, OPTIONS) for _ in range(2))
        assert all(module.training == training for module in tiny_network.modules())
    finally:
        tiny_network.eval()
    assert first == again, "no dropout while it is judged"
    assert all(torch.equal(value, before[name]) for name, value in tiny_network.state_dict().items())
    assert all(parameter.grad is None for parameter in tiny_network.parameters())
