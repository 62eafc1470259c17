"""What the encoder and each row of the [CLS] decoder may see."""

from itertools import groupby

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, Unigram
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer, UnigramTrainer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from model.distributed import seed_of
from model.masking import Corruption, Masker, Unit, visible_context
from tests.conftest import SPECIAL, WORDS

TEXT = "the working engines compress airplanes quickly and readers searched towns " * 6
SHORT = "the speed of sound"


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    found: list[int] = tokenizer(text)["input_ids"]
    return found


def byte_level() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=500, special_tokens=[*SPECIAL.values()], initial_alphabet=alphabet)
    return framed(tokenizer, trainer)


def unigram() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = UnigramTrainer(vocab_size=300, special_tokens=[*SPECIAL.values()], unk_token="[UNK]")
    return framed(tokenizer, trainer)


def framed(tokenizer: Tokenizer, trainer: BpeTrainer | UnigramTrainer) -> PreTrainedTokenizerFast:
    tokenizer.train_from_iterator([WORDS.replace("\n", " ")], trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level", "unigram"])
def test_words_are_those_of_the_tokenizer(kind: str, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer = {"wordpiece": lambda: tiny_tokenizer, "byte-level": byte_level, "unigram": unigram}[kind]()
    encoded = tokenizer(TEXT.strip())
    wanted = [0 if word is None else word + 1 for word in encoded.word_ids()]
    found = Masker(tokenizer).words(torch.tensor([encoded["input_ids"]]))[0].tolist()
    assert len(wanted) - 2 > max(wanted) == 60, "some words have several tokens"
    assert found == wanted


def test_a_special_token_ends_a_word(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = ["[CLS]", "read", "##er", "[UNK]", "##s", "##s", "[SEP]", "[PAD]"]
    row = torch.tensor([tiny_tokenizer.convert_tokens_to_ids(tokens)])
    assert Masker(tiny_tokenizer).words(row).tolist() == [[0, 1, 1, 0, 2, 2, 0, 0]]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), count=st.integers(1, 60), permille=st.integers(10, 999))
def test_whole_words_are_masked_in_random_order_up_to_the_budget(
    tiny_tokenizer: PreTrainedTokenizerFast, seed: int, count: int, permille: int
) -> None:
    rate = permille / 1000 + 0.00037  # so that no product is half a token, which float32 may round otherwise
    masker = Masker(tiny_tokenizer, encoder_rate=rate)
    words = masker.words(torch.tensor([ids(tiny_tokenizer, " ".join(TEXT.split()[:count]))]))
    draws = torch.rand(words.shape[1] + 1, generator=torch.Generator().manual_seed(seed))
    masked = set(words[0][masker.whole_words(words, draws[None])[0]].tolist())
    assert masked == words_by_hand(words[0].tolist(), draws.tolist(), rate)
    assert len(masked) < count
    assert masked or count == 1, "one word is masked at least, one stays in sight"


def words_by_hand(words: list[int], draws: list[float], rate: float) -> set[int]:
    sizes = {word: len(list(tokens)) for word, tokens in groupby(words) if word}
    ordered = sorted(sizes, key=lambda word: draws[word])
    if len(ordered) == 1:
        return set()
    budget, used, masked = round(sum(sizes.values()) * rate), 0, [ordered[0]]
    for word in ordered[:-1]:
        used += sizes[word]
        if used > budget:
            break
        masked.append(word)
    return set(masked)


def test_the_masked_share_is_what_was_asked(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    batch = Masker(tiny_tokenizer).batch([ids(tiny_tokenizer, TEXT)] * 200, range(200))
    assert 0.25 < len(batch.masked_at) / len(batch.ordinary_at) <= 0.3


def test_positions_name_the_masked_and_the_ordinary_tokens(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    masker = Masker(tiny_tokenizer)
    batch = masker.batch([ids(tiny_tokenizer, text) for text in (TEXT, SHORT, "\u2603")], [1, 2, 3])
    hidden = batch.masked_ids.flatten() == masker.mask_id
    assert torch.equal(hidden.nonzero().flatten(), batch.masked_at)
    assert torch.equal(batch.masked_ids.flatten()[~hidden], batch.input_ids.flatten()[~hidden])
    special = set(tiny_tokenizer.all_special_ids)
    ordinary = [at for at, token in enumerate(batch.input_ids.flatten().tolist()) if token not in special]
    assert batch.ordinary_at.tolist() == ordinary
    assert batch.attention_mask.sum(1).tolist() == [len(ids(tiny_tokenizer, t)) for t in (TEXT, SHORT, "\u2603")]


def test_the_released_corruption_is_80_10_10(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    masker = Masker(tiny_tokenizer, corruption="bert")
    batch = masker.batch([ids(tiny_tokenizer, "king " * 100)] * 100, range(100))
    seen = batch.masked_ids.flatten()
    at, king = seen[batch.masked_at], ids(tiny_tokenizer, "king")[1]
    shares = [(at == masker.mask_id).float().mean().item(), (at == king).float().mean().item()]
    assert shares == pytest.approx([0.8, 0.1], abs=0.03)
    others = set(at.tolist()) - {masker.mask_id, king}
    assert len(others) > 100, "random tokens come from the whole vocabulary"
    assert max(others) < len(tiny_tokenizer)
    seen[batch.masked_at] = king
    assert torch.equal(seen, batch.input_ids.flatten()), "what is not masked is unchanged"


def test_each_row_of_the_cls_decoder_sees_its_own_sample_and_never_itself() -> None:
    mask = torch.ones(8, 40, dtype=torch.long)
    mask[0, 30:] = 0
    draws = torch.rand(8, 40, 40, generator=torch.Generator().manual_seed(0))
    visible = visible_context(mask, draws, 0.5)
    assert visible[:, :, 0].all(), "[CLS] is always seen"
    assert not visible.diagonal(dim1=1, dim2=2)[:, 1:].any(), "a row sees itself"
    assert not visible[0, :, 30:].any(), "padding is seen"
    off_diagonal = visible[1:, 1:, 1:]
    assert off_diagonal.float().sum() / (7 * 39 * 38) == pytest.approx(0.5, abs=0.02)
    rows = off_diagonal[0]
    assert len({tuple(row.tolist()) for row in rows}) == len(rows), "rows share a sample"


@pytest.mark.parametrize("unit", ["token", "word"])
@pytest.mark.parametrize("rate", [0.2, 0.7])
def test_a_row_misses_the_share_of_context_that_was_asked(
    unit: Unit, rate: float, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    batch = Masker(tiny_tokenizer, decoder_rate=rate, unit=unit).batch([ids(tiny_tokenizer, TEXT)] * 4, range(4))
    L = batch.input_ids.shape[1]
    context = batch.visible[:, :, 1 : L - 1].float().sum() / (4 * (L * (L - 2) - (L - 2)))  # but for the diagonal
    assert context == pytest.approx(1 - rate, abs=0.02)
    assert batch.visible[:, :-1, L - 1].all() == (unit == "word"), "[SEP] is in sight, or sampled like any token"


def test_a_row_misses_whole_words_where_the_unit_is_a_word(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    masker = Masker(tiny_tokenizer, unit="word")
    batch = masker.batch([ids(tiny_tokenizer, TEXT), ids(tiny_tokenizer, SHORT)], [5, 6])
    words = masker.words(batch.input_ids)
    for visible, numbers, length in zip(batch.visible.tolist(), words.tolist(), (77, 6), strict=True):
        for i in range(length):
            seen = {(numbers[j], visible[i][j]) for j in range(length) if numbers[j] and j != i}
            assert len(seen) == len({word for word, _ in seen}), "a word is seen in part"
            assert i == 0 or not visible[i][i]


@pytest.mark.parametrize("corruption", ["mask", "bert"])
@pytest.mark.parametrize("unit", ["token", "word"])
def test_a_batch_is_its_texts_alone_but_for_padding(
    corruption: Corruption, unit: Unit, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    masker = Masker(tiny_tokenizer, corruption=corruption, unit=unit)
    texts = [ids(tiny_tokenizer, text) for text in (SHORT, TEXT, "airplanes", SHORT)]
    seeds = [seed_of(3, row) for row in range(4)]
    batch = masker.batch(texts, seeds)
    L = batch.input_ids.shape[1]
    for row, (text, seed) in enumerate(zip(texts, seeds, strict=True)):
        n, alone = len(text), masker.batch([text], [seed])
        assert torch.equal(alone.input_ids[0], batch.input_ids[row, :n])
        assert torch.equal(alone.masked_ids[0], batch.masked_ids[row, :n])
        assert torch.equal(alone.visible[0], batch.visible[row, :n, :n])
        assert (batch.input_ids[row, n:] == masker.pad_id).all()
        assert not batch.visible[row, :, n:].any()
        for mine, whole in ((alone.masked_at, batch.masked_at), (alone.ordinary_at, batch.ordinary_at)):
            assert (mine + row * L).tolist() == [at for at in whole.tolist() if at // L == row]


def test_one_seed_gives_one_mask_and_another_seed_another(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    masker = Masker(tiny_tokenizer)
    batch = masker.batch([ids(tiny_tokenizer, TEXT)] * 3, [7, 7, 8])
    for seen in (batch.masked_ids, batch.visible):
        assert torch.equal(seen[0], seen[1])
        assert not torch.equal(seen[0], seen[2])
    again: Tensor = masker.batch([ids(tiny_tokenizer, TEXT)], [8]).visible
    assert torch.equal(again[0], batch.visible[2])
