"""What each decoder may see."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from model.masking import Masker, visible_context


@pytest.fixture(scope="module")
def masker(tiny_tokenizer: PreTrainedTokenizerFast) -> Masker:
    return Masker(tiny_tokenizer)


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    found: list[int] = tokenizer(text)["input_ids"]
    return found


TEXT = "the working engines compress airplanes quickly and readers searched towns " * 6


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), words=st.integers(2, 40))
def test_words_are_masked_whole_and_within_the_budget(
    tiny_tokenizer: PreTrainedTokenizerFast, seed: int, words: int
) -> None:
    masker = Masker(tiny_tokenizer)
    row = torch.tensor([ids(tiny_tokenizer, " ".join(TEXT.split()[:words]))])
    masked = masker.whole_words(row, torch.Generator().manual_seed(seed))[0]
    inside = masker.continues[row[0]]
    assert (masked[1:] == masked[:-1])[inside[1:]].all(), "a word was masked in part"
    ordinary = ~torch.isin(row[0], masker.special)
    assert not masked[~ordinary].any()
    assert 0 < masked.sum() < ordinary.sum()


def test_the_masked_share_is_what_was_asked(tiny_tokenizer: PreTrainedTokenizerFast, masker: Masker) -> None:
    row = torch.tensor([ids(tiny_tokenizer, TEXT)] * 200)
    masked = masker.whole_words(row, torch.Generator().manual_seed(0))
    share = masked.sum() / (200 * (row.shape[1] - 2))
    assert 0.25 < share <= 0.3


def test_a_single_word_stays_in_sight(tiny_tokenizer: PreTrainedTokenizerFast, masker: Masker) -> None:
    row = torch.tensor([ids(tiny_tokenizer, "airplanes")])
    assert not masker.whole_words(row, torch.Generator().manual_seed(0)).any()


def test_masked_positions_follow_the_80_10_10_rule(tiny_tokenizer: PreTrainedTokenizerFast, masker: Masker) -> None:
    row = torch.full((100, 100), ids(tiny_tokenizer, "king")[1])
    replaced = masker.replace(row, torch.ones_like(row, dtype=torch.bool), torch.Generator().manual_seed(0))
    shares = [(replaced == masker.mask_id).float().mean(), (replaced == row).float().mean()]
    assert shares == pytest.approx([0.8, 0.1], abs=0.02)
    untouched = masker.replace(row, torch.zeros_like(row, dtype=torch.bool), torch.Generator().manual_seed(0))
    assert torch.equal(untouched, row)


def test_each_row_of_the_cls_decoder_sees_its_own_sample_and_never_itself() -> None:
    mask = torch.ones(8, 40, dtype=torch.long)
    mask[0, 30:] = 0
    visible = visible_context(mask, 0.5, torch.Generator().manual_seed(0))
    assert visible[:, :, 0].all(), "[CLS] is always seen"
    assert not visible.diagonal(dim1=1, dim2=2)[:, 1:].any(), "a row sees itself"
    assert not visible[0, :, 30:].any(), "padding is seen"
    off_diagonal = visible[1:, 1:, 1:]
    assert off_diagonal.float().sum() / (7 * 39 * 38) == pytest.approx(0.5, abs=0.02)
    rows = off_diagonal[0]
    assert len({tuple(row.tolist()) for row in rows}) == len(rows), "rows share a sample"


def test_one_seed_gives_one_batch_and_another_seed_another(
    tiny_tokenizer: PreTrainedTokenizerFast, masker: Masker
) -> None:
    texts = [ids(tiny_tokenizer, TEXT), ids(tiny_tokenizer, "the speed of sound")]
    one, same, other = (masker.batch(texts, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one.masked_ids, other.masked_ids)
    assert torch.equal(one.labels[one.labels >= 0], one.input_ids[one.labels >= 0])
    assert one.attention_mask.sum(1).tolist() == [len(ids) for ids in texts]
