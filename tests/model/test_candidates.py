"""Which passages stand against which query, compared with the same told in texts instead of tensors."""

import json
import random
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from model.candidates import Batches, Candidates, Draw, Drawn, draw, drawn, key
from model.distributed import Ranks
from model.lines import SourceError
from model.options import FinetuneOptions
from model.records import Example, Records

CPU = torch.device("cpu")
ALONE = Ranks(0, 1, CPU)
OPTIONS = FinetuneOptions(batch_size=4, negatives=2)
TEXTS = "abcdefgh"
SCORED = Example("q", ("a", "b"), ("c", "d", "e"), (1.0, 2.0), (3.0, 4.0, 5.0))


# ---- the batch as texts


def expected(shares: list[list[Draw]], rank: int) -> Candidates:
    """What `Candidates.gathered` should give a rank, from the texts of all ranks."""
    each = [list(dict.fromkeys(text for one in share for text in one.passages)) for share in shares]
    size = max(map(len, each))
    columns = [text for texts in each for text in [*texts, *[None] * (size - len(texts))]]
    right = {(one.example.query, text) for share in shares for one in share for text in one.example.positives}
    repeated = [text in columns[:at] for at, text in enumerate(columns)]
    mine, widest = shares[rank], max(len(one.passages) for one in shares[rank])
    group = [[columns.index(text) for text in one.passages] for one in mine]
    ignored = [
        [
            at != own[0] and (text is None or repeated[at] or (one.example.query, text) in right)
            for at, text in enumerate(columns)
        ]
        for one, own in zip(mine, group, strict=True)
    ]
    return Candidates(
        size,
        torch.tensor([key(text) if text else 0 for text in columns]),
        torch.tensor([own[0] for own in group]),
        torch.tensor(ignored),
        torch.tensor([own + [-1] * (widest - len(own)) for own in group]),
        torch.tensor([float(text is not None and not again) for text, again in zip(columns, repeated, strict=True)]),
    )


def assert_same(found: Candidates, wanted: Candidates) -> None:
    assert found.size == wanted.size
    for name in ("target", "ignored", "group", "once"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), msg=name)


def some_draws(rng: random.Random, queries: int, most: int) -> list[Draw]:
    """Few queries and few texts, so that both return in other records, as right answers and as wrong ones."""
    draws = []
    for _ in range(queries):
        texts = rng.sample(TEXTS, rng.randint(1, most))
        positives = rng.randint(1, len(texts))
        example = Example(rng.choice("xyz"), tuple(texts[:positives]), tuple(texts[positives:]))
        draws.append(draw(example, OPTIONS, rng))
    return draws


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), queries=st.integers(1, 6), most=st.integers(1, 5))
def test_every_passage_is_a_candidate_once_unless_it_is_another_right_answer(
    tiny_tokenizer: PreTrainedTokenizerFast, seed: int, queries: int, most: int
) -> None:
    draws = some_draws(random.Random(seed), queries, most)
    assert_same(Candidates.gathered(drawn(draws, tiny_tokenizer, OPTIONS), ALONE), expected([draws], 0))


def test_an_answer_that_only_another_record_of_the_query_names_is_not_wrong(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    draws = [
        Draw(Example("x", ("a",), ("c",)), ("a", "c"), ()),
        Draw(Example("x", ("b", "c")), ("b",), ()),  # c was not drawn here, but is right
        Draw(Example("y", ("d",)), ("d",), ()),
    ]
    found = Candidates.gathered(drawn(draws, tiny_tokenizer, OPTIONS), ALONE)  # columns a, c, b, d
    assert found.ignored.int().tolist() == [[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]


def shares_of_two(seed: int) -> list[list[Draw]]:
    """One rank mostly has more passages than the other."""
    rng = random.Random(seed)
    return [some_draws(rng, 4, 1 + seed % 5), some_draws(rng, 4, 1 + seed // 5)]


def gathered_by_a_rank(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    ranks = Ranks(rank, 2, CPU)
    drawn_here = [drawn(shares_of_two(seed)[rank], tokenizer, OPTIONS) for seed in range(25)]
    torch.save([tuple(Candidates.gathered(share, ranks)) for share in drawn_here], folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_share_their_passages(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tiny_tokenizer.save_pretrained(tmp_path)
    with get_context("spawn").Pool(2) as pool:
        both = pool.starmap_async(gathered_by_a_rank, [(rank, tmp_path) for rank in range(2)], chunksize=1)
        both.get(timeout=300)  # ranks that disagree on a shape wait for ever
    for rank in range(2):
        for seed, found in enumerate(torch.load(tmp_path / f"{rank}.pt")):
            assert_same(Candidates(*found), expected(shares_of_two(seed), rank))


def test_a_share_is_texts_as_tokens_each_passage_once(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    long = "the king " * 100
    draws = [
        Draw(Example(long, ("a king", "b")), ("a king", long), (1.5, 0.5)),
        Draw(Example("fish", ("a king",)), ("a king",), (2.5,)),
    ]
    found = drawn(draws, tiny_tokenizer, FinetuneOptions(query_tokens=8, document_tokens=20), 0.25)
    assert found.query_ids.shape == found.query_mask.shape == (2, 8)
    assert found.passage_ids.shape == (2, 20)
    assert found.passage_ids[0, :4].tolist() == tiny_tokenizer("a king")["input_ids"]
    assert found.passage_mask.sum(1).tolist() == [4, 20]
    assert found.tokens == 8 + 3 + 4 + 20
    assert found.group.tolist() == [[0, 1], [0, -1]]
    assert found.teacher.tolist() == [[1.5, 0.5], [2.5, 0.0]]
    assert found.right_keys.tolist() == [[key("a king"), key("b")], [key("a king"), 0]]
    assert found.progress == 0.25
    assert all(torch.equal(*pair) for pair in zip(found.to(CPU)[:-2], found[:-2], strict=True))


@settings(deadline=None)
@given(st.lists(st.text(), unique=True))
def test_keys_tell_texts_apart_and_none_is_zero(texts: list[str]) -> None:
    keys = set(map(key, texts))
    assert len(keys) == len(texts)
    assert all(0 < number < 2**63 for number in keys)


# ---- draws


def test_a_draw_is_one_positive_and_negatives_with_their_scores() -> None:
    score = dict(zip((*SCORED.positives, *SCORED.negatives), (1.0, 2.0, 3.0, 4.0, 5.0), strict=True))
    options = FinetuneOptions(negatives=2, distill_weight=1)
    seen = Counter[str]()
    for seed in range(200):
        one = draw(SCORED, options, random.Random(seed))
        positive, *negatives = one.passages
        assert positive in SCORED.positives
        assert len(set(negatives) & set(SCORED.negatives)) == len(negatives) == 2
        assert one.scores == tuple(score[text] for text in one.passages)
        seen.update(one.passages)
        assert one == draw(SCORED, options, random.Random(seed))
    assert all(seen[text] > 70 for text in SCORED.positives)
    assert all(seen[text] > 100 for text in SCORED.negatives)


def test_there_are_no_more_negatives_than_the_record_has() -> None:
    assert len(draw(SCORED, FinetuneOptions(negatives=9), random.Random(0)).passages) == 4
    assert len(draw(SCORED, FinetuneOptions(negatives=0), random.Random(0)).passages) == 1


@pytest.mark.parametrize(
    ("example", "wanted"),
    [
        (Example("q", ("a",), ("b",)), None),
        (Example("q", ("a",), ("b",), (1.0,)), None),
        (Example("q", ("a",), ("b",), (), (1.0,)), None),
        (Example("q", ("a",), (), (1.0,)), (1.0,)),
    ],
)
def test_distillation_without_scores_is_refused(example: Example, wanted: tuple[float] | None) -> None:
    options, rng = FinetuneOptions(distill_weight=0.5), random.Random(0)
    if wanted:
        assert draw(example, options, rng).scores == wanted
        return
    with pytest.raises(
        SourceError, match=r"distill_weight=0.5, but the record of 'q' has no scores; `dupmae model score`"
    ):
        draw(example, options, rng)


# ---- batches


def records(folder: Path, name: str, count: int) -> Records:
    rows = [{"query": f"{name} {n}", "pos": [f"pos {n}", f"{name} pos"], "neg": list(TEXTS)} for n in range(count)]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Records(path)


def same(one: Drawn, two: Drawn) -> bool:
    return one[-2:] == two[-2:] and all(map(torch.equal, one[:-2], two[:-2]))


@pytest.fixture
def files(tmp_path: Path) -> list[Records]:
    return [records(tmp_path, "many", 30), records(tmp_path, "few", 5)]


@pytest.mark.parametrize("first", [2, 7, 20])
def test_batches_from_the_middle_are_those_of_the_whole(
    first: int, files: list[Records], tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    whole, middle = (Batches(files, tiny_tokenizer, OPTIONS, ALONE) for _ in range(2))
    steps = {step: whole.parts(step) for step in range(1, first + 5)}
    for step in range(first, first + 5):
        (one,), (two,) = steps[step], middle.parts(step)
        assert same(one, two)
    (other,) = Batches(files, tiny_tokenizer, OPTIONS.model_copy(update={"seed": 1}), ALONE).parts(first)
    assert not same(other, steps[first][0])


def test_an_epoch_is_every_record_once_in_an_order_of_its_own(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    file = records(tmp_path, "one", 14)  # three batches, and a rest of two that is dropped
    batches = Batches([file], tiny_tokenizer, OPTIONS, ALONE)
    steps = [batches.parts(step)[0].query_keys.tolist() for step in range(1, 31)]
    epochs = {tuple(query for step in steps[at : at + 3] for query in step) for at in range(0, 30, 3)}
    assert len(epochs) == 10
    assert all(len(set(epoch)) == 12 for epoch in epochs)
    assert set().union(*epochs) == {key(example.query) for example in file}, "the rest is another one each time"


def test_files_take_turns_by_the_square_root_of_their_size_and_do_not_mix(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    files = [records(tmp_path, "many", 64), records(tmp_path, "few", 4)]
    batches = Batches(files, tiny_tokenizer, OPTIONS, ALONE)
    few, turns = {key(example.query) for example in files[1]}, Counter[int]()
    for step in range(1, 301):
        turns[len(few & set(batches.parts(step)[0].query_keys.tolist()))] += 1
    assert turns.keys() == {0, 4}
    assert turns[4] / 300 == pytest.approx(2 / (8 + 2), abs=0.07)


def test_ranks_divide_the_batch_that_one_would_have(
    files: list[Records], tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    whole, *shares = (
        Batches(files, tiny_tokenizer, OPTIONS, Ranks(rank, size, CPU)) for rank, size in ((0, 1), (0, 2), (1, 2))
    )
    for step in range(1, 9):
        (all_of_it,), (first,), (second,) = (batches.parts(step) for batches in (whole, *shares))
        assert all_of_it.query_keys.tolist() == [*first.query_keys.tolist(), *second.query_keys.tolist()]
        drawn_alone = [all_of_it.passage_keys[row].tolist() for row in all_of_it.group]
        assert drawn_alone == [share.passage_keys[row].tolist() for share in (first, second) for row in share.group]


def test_a_file_smaller_than_a_batch_is_named(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(SourceError, match=r"few\.jsonl: 3 records, fewer than batch_size=4"):
        Batches([records(tmp_path, "few", 3)], tiny_tokenizer, OPTIONS, ALONE)
