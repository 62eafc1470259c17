"""BM25 over a vocabulary: what the bag of words of a text would be if words counted as BM25 counts them.

BM25's score is a sum over words of two factors, how rare the word is and how often the passage has it, so that it is
the product of two sparse vectors, whose entries share the first factor. A learned bag can come near to them text by
text, which says far more than a score a pair does. Words are those of the vocabulary: the pieces of a word that was
cut up are words, and all whole words of one stem are the one that comes first (`flows`, `flowing` and `flow` are
`flow`), so that they match each other.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from model.masking import begins, continuations
from model.records import Example, Records
from model.teaching import K1, B

WORD_SCALE = 0.5
"""What two texts score for sharing a word, for each nat of its rarity: about 12 for a usual query found whole."""

COMMON = 1.0
"""Nats of rarity below which a word weighs nothing: those of a word that every third text holds."""

USUAL_TOKENS = 130
"""Length, in tokens, of a text that counts as neither short nor long."""

TOKENS = 254
"""Of a text, for how rare words are."""

RECORDS_A_FILE = 3000
"""Whose texts say how rare words are; as many of each file, whatever its size. Queries are a third of them, or what
questions are made of would be rare."""

TEXTS_AT_ONCE = 256


class Lexicon(NamedTuple):
    """The words of a vocabulary.

    Attributes:
        word: (V,) int64, the entry that stands for a token which is a whole word; itself for most.
        continues: (V,) bool, the tokens that go on with the word before them.
        special: (V,) bool, the tokens that are no words.
        rarity: (V,) float32, nats: BM25's weight of a word, by the texts that were counted; 0 for punctuation.
    """

    word: Tensor
    continues: Tensor
    special: Tensor
    rarity: Tensor

    @classmethod
    def counted(cls, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> "Lexicon":
        """How rare words are in some thousand texts."""
        V = len(tokenizer)
        special = torch.zeros(V, dtype=torch.bool).index_fill(0, torch.tensor(tokenizer.all_special_ids), True)
        lexicon = cls(_stems(tokenizer), continuations(tokenizer), special, torch.zeros(V))
        tokens = tokenizer.convert_ids_to_tokens(list(range(V)))
        silent = torch.tensor([not any(map(str.isalnum, token)) for token in tokens])
        holding = torch.zeros(V, dtype=torch.double)
        for at in range(0, len(texts), TEXTS_AT_ONCE):
            some = list(texts[at : at + TEXTS_AT_ONCE])
            ids = tokenizer(some, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")["input_ids"]
            holding += (lexicon.counts(ids) > 0).sum(0)
        rarity = ((len(texts) - holding + 0.5) / (holding + 0.5)).log1p()  # as Lucene and bm25s weigh
        return lexicon._replace(rarity=rarity.float().masked_fill(silent, 0))

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, files: Sequence[Records]) -> "Lexicon":
        """How rare words are in training records: in queries, a right passage of each, and a wrong one."""
        chosen = (example for file in files for example in _some(file))
        texts = (t for e in chosen for t in (e.query, *e.positives[:1], *e.negatives[:1]))
        return cls.counted(tokenizer, list(dict.fromkeys(texts)))

    def to(self, device: torch.device) -> "Lexicon":
        """The same on another device."""
        return Lexicon(*(tensor.to(device) for tensor in self))

    @property
    def weight(self) -> Tensor:
        """(V,) float32, what two texts score for sharing a word once; 0 for common ones."""
        return WORD_SCALE * (self.rarity - COMMON).clamp(min=0)

    def counts(self, input_ids: Tensor) -> Tensor:
        """(N, L), framed and padded by special tokens -> (N, V) float32, how often a text has a word."""
        ordinary = ~self.special[input_ids]
        first = begins(ordinary, self.continues[input_ids])
        whole = first & torch.cat([(first | ~ordinary)[:, 1:], torch.ones_like(first[:, :1])], dim=1)
        words = torch.where(whole, self.word[input_ids], input_ids)
        counts = torch.zeros(len(input_ids), len(self.word), device=input_ids.device)
        return counts.scatter_add(1, words, ordinary.float())

    def bags(self, input_ids: Tensor) -> Tensor:
        """(N, L) -> (N, V) float32. Products are BM25's scores, with the query's words saturated as well."""
        counts = self.counts(input_ids)
        length = 1 - B + B * counts.sum(1, keepdim=True) / USUAL_TOKENS
        return self.weight.sqrt() * counts * (K1 + 1) / (counts + K1 * length)


def _some(file: Records) -> Iterable[Example]:
    step = max(1, len(file) // RECORDS_A_FILE)
    return islice((file[row] for row in range(0, len(file), step)), RECORDS_A_FILE)


def _stems(tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """(V,) int64: the first entry of the same English stem, for words of three letters and more."""
    import Stemmer

    stemmer, first, word = Stemmer.Stemmer("english"), dict[str, int](), torch.arange(len(tokenizer))
    joined = continuations(tokenizer).tolist()
    for entry, token in enumerate(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))):
        text = token.lstrip("Ġ▁").lower()
        if len(text) > 2 and text.isalpha() and not joined[entry]:
            word[entry] = first.setdefault(stemmer.stemWord(text), entry)
    return word
