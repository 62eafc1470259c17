"""The words of a text as the model's tokenizer reads them, fast enough to explain every result of an answer.

A WordPiece tokenizer splits at white space and punctuation first and looks at each piece by itself. So in plain text a
piece is tokenized once and remembered, and a text costs one regular expression and look-ups. Whatever is not plain, by
letters or by what the tokenizer treats apart, is tokenized as a whole.
"""

import re
from functools import lru_cache
from itertools import chain

from model.encoder import Encoder
from service.explain import Word, split_words

PIECE = re.compile(r"[A-Za-z0-9]+|[!-/:-@\[-`{-~]")

NOT_PLAIN = re.compile(r"[^\t\n\r\x20-\x7e]|\[[A-Z]+\]")
"""Other letters, control characters, and what may be the name of a special token."""

REMEMBERED = 2**15
"""Pieces: more than an English text has, at a few megabytes."""


class Splitter:
    """Splits texts into words for one encoder. Thread-safe."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._of_piece = lru_cache(REMEMBERED)(self._tokenized)

    def words(self, text: str) -> list[Word]:
        """The distinct words of a text, in the order they first stand in it."""
        if NOT_PLAIN.search(text):
            return list(dict.fromkeys(self._tokenized(text)))
        pieces = dict.fromkeys(PIECE.findall(text))
        return list(dict.fromkeys(chain.from_iterable(map(self._of_piece, pieces))))

    def _tokenized(self, text: str) -> list[Word]:
        return split_words(self._encoder.vocabulary[entry] for entry in self._encoder.token_ids(text))
