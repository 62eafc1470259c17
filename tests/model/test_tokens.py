"""A corpus as token ids on disk: tokenized once, read in any order."""

import json
import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from model.corpus import sequences
from model.lines import SourceError
from model.tokens import LEAST_TOKENS, TokenRuns, tokenized
from tests.conftest import SPECIAL, WORDS

LINE = "the king and the queen of the island had a horse two dogs and a cat"  # of 17 tokens


def words(first: int, count: int) -> str:
    return " ".join((WORDS.split() * 2)[first % 200 : first % 200 + count])


def write(path: Path, texts: int) -> Path:
    path.write_text("".join(words(n, 10 + n % 50) + "\n" for n in range(texts)))
    return path


def word_level(entries: int) -> PreTrainedTokenizerFast:
    names = [*SPECIAL.values(), *(f"w{n}" for n in range(entries - len(SPECIAL)))]
    tokenizer = Tokenizer(WordLevel({name: n for n, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)


@pytest.fixture
def runs(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> TokenRuns:
    return tokenized([write(tmp_path / "text.txt", 41)], tiny_tokenizer, 100, tmp_path / "tokens")


def test_runs_are_the_tokens_of_each_text_packed(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    path = tmp_path / "texts.jsonl"
    paragraphs = [[LINE, words(3, 30), words(40, 50)], [words(7, 12)]]
    rows = [{"title": title, "text": "\n".join(rest)} for title, *rest in paragraphs]
    path.write_text("\n".join(map(json.dumps, rows)))
    runs = tokenized([path, path], tiny_tokenizer, 40, tmp_path / "tokens")
    split = [[tiny_tokenizer.encode(p, add_special_tokens=False) for p in text] for text in paragraphs]
    wanted = [run for text in split for run in sequences(text, 40) if len(run) >= LEAST_TOKENS] * 2
    assert list(islice(map(runs.__getitem__, range(99)), len(runs))) == wanted
    assert (len(runs), runs.texts, runs.tokens) == (len(wanted), 4, sum(map(len, wanted)))
    with pytest.raises(IndexError):
        runs[len(runs)]


def test_runs_too_short_or_without_a_known_word_are_left_out(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(["the king", "\u2603 " * 20, LINE, "\u2603 " * 20 + "king"]))
    runs = tokenized([path], tiny_tokenizer, 50, tmp_path / "tokens")
    assert runs.texts == 4
    assert [len(runs[n]) for n in range(len(runs))] == [17, 21]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch_size=st.integers(1, 41), seed=st.integers(0, 99), after=st.integers(0, 100))
def test_passing_over_batches_is_reading_them(runs: TokenRuns, batch_size: int, seed: int, after: int) -> None:
    read = list(islice(runs.batches(batch_size, seed), after, after + 3))
    assert list(islice(runs.batches(batch_size, seed, after=after), 3)) == read


def test_an_epoch_is_every_run_once_in_an_order_of_its_own(runs: TokenRuns) -> None:
    everything = sorted(runs[n] for n in range(41))
    epochs = [[run for batch in islice(runs.batches(1, 5, after=at), 41) for run in batch] for at in (0, 41, 82)]
    other = [run for batch in islice(runs.batches(1, 6), 41) for run in batch]
    assert all(sorted(epoch) == everything for epoch in epochs)
    assert all(one != two for one, two in zip([*epochs, other], [*epochs[1:], other, everything], strict=True))
    batches = list(islice(runs.batches(10, 5), 8))
    assert {len(batch) for batch in batches} == {10}, "the rest of an epoch is dropped"
    assert [run for batch in batches[:4] for run in batch] == epochs[0][:40]
    assert [run for batch in batches[4:] for run in batch] == epochs[1][:40]


def test_what_was_tokenized_is_used_again_until_something_changes(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    path, told = write(tmp_path / "text.txt", 20), list[int]()

    def digest(tokenizer: PreTrainedTokenizerFast = tiny_tokenizer, max_tokens: int = 30) -> str:
        told.clear()
        return tokenized([path], tokenizer, max_tokens, tmp_path / "tokens", told.append).digest

    first = digest()
    assert told == [20]
    assert digest() == first
    assert not told, "nothing was read"
    shorter = digest(max_tokens=9)
    assert told == [20]
    rules = Tokenizer.from_str(tiny_tokenizer.backend_tokenizer.to_str())
    rules.normalizer = BertNormalizer(lowercase=False)
    assert digest(PreTrainedTokenizerFast(tokenizer_object=rules, **SPECIAL)) == first
    assert told == [20], "one vocabulary, other rules"
    path.write_text(path.read_text().replace("the", "and"))  # as long as before
    os.utime(path, ns=(0, 0))
    changed = digest()
    assert told == [20]
    assert len({first, shorter, changed}) == 3
    assert digest() == changed
    assert not told


@pytest.mark.parametrize(("entries", "dtype"), [(2**16, "uint16"), (2**16 + 1, "uint32")])
def test_every_id_comes_back_from_the_disk(entries: int, dtype: str, tmp_path: Path) -> None:
    path, last = tmp_path / "text.txt", entries - len(SPECIAL)
    path.write_text(" ".join(f"w{n}" for n in range(last - LEAST_TOKENS, last)))
    runs = tokenized([path], word_level(entries), 100, tmp_path / "tokens")
    assert runs[0] == list(range(entries - LEAST_TOKENS, entries))
    (file,) = (tmp_path / "tokens").glob("*/ids.bin")
    assert file.stat().st_size == LEAST_TOKENS * int(dtype.removeprefix("uint")) // 8


def test_a_run_that_was_cut_leaves_nothing_that_is_taken_for_whole(
    tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    path, told = write(tmp_path / "text.txt", 600), list[int]()

    def interrupt(texts: int) -> None:
        if texts > 300:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenized([path], tiny_tokenizer, 30, tmp_path / "tokens", interrupt)
    runs = tokenized([path], tiny_tokenizer, 30, tmp_path / "tokens", told.append)
    assert told == [256, 512, 600]
    assert runs.digest == tokenized([path], tiny_tokenizer, 30, tmp_path / "elsewhere").digest


def test_two_runs_that_start_at_once_tokenize_once(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    path, told, together = write(tmp_path / "text.txt", 600), list[int](), Barrier(2)

    def start(_: int) -> list[list[int]]:
        together.wait()
        return next(tokenized([path], tiny_tokenizer, 30, tmp_path / "tokens", told.append).batches(20, 0))

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(start, range(2))
    assert one == two
    assert told == [256, 512, 600]


def test_texts_that_cannot_be_trained_on_are_named(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    (tmp_path / "short.txt").write_text("the king\n" * 100)
    (tmp_path / "bad.jsonl").write_text("no json")
    for name, complaint in (
        ("short.txt", r"short\.txt: no text of at least 8 tokens"),
        ("bad.jsonl", r"bad\.jsonl:1: want UTF-8 text or JSON"),
        ("none.txt", r"none\.txt: No such file"),
    ):
        with pytest.raises(SourceError, match=complaint):
            tokenized([tmp_path / name], tiny_tokenizer, 30, tmp_path / "tokens")


def test_fewer_runs_than_a_batch_are_an_error(runs: TokenRuns) -> None:
    with pytest.raises(SourceError, match="41 runs of tokens, fewer than batch_size=42; use more text"):
        next(runs.batches(42, 0))


def test_memory_grows_by_the_order_of_the_runs_and_no_more(tmp_path: Path) -> None:
    tokenizer, text = word_level(100), " ".join(f"w{n}" for n in range(20)) + " " + "unknown" * 200

    def peak(texts: int) -> int:
        path = tmp_path / f"{texts}.txt"
        path.write_text(f"{text}\n" * texts)  # few tokens in many bytes, so that even the small file is read in parts
        tracemalloc.start()
        try:
            runs = tokenized([path], tokenizer, 100, tmp_path / "tokens")
            seen = sum(len(run) for batch in islice(runs.batches(10, 0), texts // 10) for run in batch)
            assert seen == runs.tokens == 21 * texts
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = 2500, 10_000
    assert peak(many) - peak(few) < 3 * 8 * (many - few)
