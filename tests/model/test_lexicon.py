"""BM25 over a vocabulary: its bags against BM25 of a library, its words against the texts that hold them."""

import json
import math
import re
from pathlib import Path

import bm25s
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import PreTrainedTokenizerFast

from model.lexicon import COMMON, USUAL_TOKENS, WORD_SCALE, Lexicon
from model.masking import continuations
from model.records import Records
from model.teaching import K1, B

TEXTS = [
    "the king and the queen",
    "the queen reads a book, a book about the king",
    "how do i read a file",
    "a horse, a horse and the old town",
    "the old king and the sea",
]


def ids(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    return torch.as_tensor(tokenizer(texts, padding=True, return_tensors="pt")["input_ids"])


def bags(lexicon: Lexicon, tokenizer: PreTrainedTokenizerFast, text: str) -> dict[str, float]:
    row = lexicon.bags(ids(tokenizer, [text]))[0]
    return {str(tokenizer.convert_ids_to_tokens(int(n))): row[n].item() for n in row.nonzero()[:, 0]}


def test_products_of_bags_are_bm25(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """Of a query that has each word once, whose own saturation is a constant factor."""
    query = "queen horse town"
    lexicon = Lexicon.counted(tiny_tokenizer, TEXTS * 40)
    rarity = {n: float(lexicon.rarity[n]) for n in range(len(tiny_tokenizer))}
    words = [[n for n in row if n not in tiny_tokenizer.all_special_ids] for row in tiny_tokenizer(TEXTS)["input_ids"]]
    lengths = [len(row) for row in words]
    q, d = lexicon.bags(ids(tiny_tokenizer, [query])), lexicon.bags(ids(tiny_tokenizer, TEXTS))
    own = 1 * (K1 + 1) / (1 + K1 * (1 - B + B * 3 / USUAL_TOKENS))
    for found, row, length in zip((q @ d.t())[0].tolist(), words, lengths, strict=True):
        score = 0.0
        for n in tiny_tokenizer(query)["input_ids"][1:-1]:
            times = row.count(n)
            norm = K1 * (1 - B + B * length / USUAL_TOKENS)
            score += WORD_SCALE * max(0.0, rarity[n] - COMMON) * times * (K1 + 1) / (times + norm)
        assert found == pytest.approx(own * score, rel=1e-5)


def test_rarity_is_what_a_library_s_bm25_has(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    lexicon, entries = Lexicon.counted(tiny_tokenizer, TEXTS), tiny_tokenizer.get_vocab()
    index = bm25s.BM25(method="lucene", k1=K1, b=0.0)
    index.index([re.findall(r"\w+", text) for text in TEXTS], show_progress=False)
    for word in ("queen", "horse", "town", "king", "a", "the"):
        holding = [(n, text.split().count(word)) for n, text in enumerate(t.replace(",", "") for t in TEXTS)]
        row, times = next((n, times) for n, times in holding if times)
        theirs = index.get_scores([word])[row] * (times + K1) / times  # without saturation
        assert lexicon.rarity[entries[word]].item() == pytest.approx(theirs, rel=1e-5)
    assert lexicon.rarity[entries[","]] == 0, "punctuation says nothing"


def test_words_of_a_stem_are_one_and_pieces_of_others_stay() -> None:
    words = "flow flows flowing king ##flow ##s nest".split()
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    vocabulary = {entry: n for n, entry in enumerate([*special.values(), *words])}
    bare = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    bare.pre_tokenizer = BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, **special)
    lexicon = Lexicon.counted(tokenizer, ["the nest"] * 50)
    assert bags(lexicon, tokenizer, "flows, king flowing").keys() == {"flow", "king"}
    assert bags(lexicon, tokenizer, "kingflow").keys() == {"king", "##flow"}
    cut = bags(lexicon, tokenizer, "flowss")
    assert cut.keys() == {"flows", "##s"}, "the first piece of a word is not the word"
    assert bags(lexicon, tokenizer, "nest") == {}, "what every text holds weighs nothing"


def test_tokenizers_that_mark_beginnings_have_the_same_words() -> None:
    vocabulary = {"<s>": 0, "</s>": 1, "<pad>": 2, "<unk>": 3, "<mask>": 4, "Ġflow": 5, "Ġflows": 6, "s": 7, "flow": 8}
    bare = Tokenizer(BPE(vocabulary, []))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bare,
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )
    lexicon = Lexicon.counted(tokenizer, ["s"])
    assert continuations(tokenizer)[7]
    counts = lexicon.counts(torch.tensor([[0, 8, 6, 7, 6, 1, 2]]))[0]
    assert {n: times for n, times in enumerate(counts.tolist()) if times} == {8: 1, 6: 1, 7: 1, 5: 1}


@given(st.lists(st.sampled_from("king queen horse town the sea old".split()), max_size=9), st.integers(0, 5))
def test_padding_changes_nothing(tiny_tokenizer: PreTrainedTokenizerFast, words: list[str], more: int) -> None:
    lexicon = Lexicon.counted(tiny_tokenizer, TEXTS)
    row = ids(tiny_tokenizer, [" ".join(words)])
    padded = torch.nn.functional.pad(row, (0, more), value=tiny_tokenizer.pad_token_id)
    assert torch.equal(lexicon.bags(row), lexicon.bags(padded))
    assert lexicon.counts(row).sum() == len(words)


def test_records_count_as_queries_and_passages(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    rows = [{"query": f"queen {word}", "pos": [f"king {word}"], "neg": [f"horse {word}", "town"]} for word in "abcd"]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lexicon, vocabulary = Lexicon.of(tiny_tokenizer, [Records(path)]), tiny_tokenizer.get_vocab()
    usual = math.log1p((12 - 4 + 0.5) / (4 + 0.5))
    assert [lexicon.rarity[vocabulary[w]].item() for w in ("queen", "king", "horse")] == [pytest.approx(usual)] * 3
    assert lexicon.rarity[vocabulary["town"]] == pytest.approx(math.log1p(12.5 / 0.5)), (
        "a second negative is not counted"
    )
