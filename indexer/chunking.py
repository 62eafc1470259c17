"""Passages of documents that are longer than the model's window.

A document that fits is one passage, encoded as it always was. A longer one is cut where paragraphs or sentences end,
in words where a sentence is longer than the window, and in a word only where that is. Lengths are counted by the
model's own tokenizer, so that nothing the model does not read is taken for read. The cost is to tokenize once or twice
more, a few hundredths of the time that encoding takes (`bench/chunking.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.documents import Document
from indexer.store import Chunking
from indexer.stretches import Rooms, TokenizedText
from model.encoder import Encoder

DEFAULT_OVERLAP = Chunking().overlap


class ChunkingError(ValueError):
    """Passages that this model cannot read, or that would repeat themselves; the message names value and remedy."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a document that is encoded and found by itself.

    Attributes:
        number: Its place among the document's passages, from 0.
        start: Where it begins in `Document.text`, in characters.
        end: Where it ends there; the passage is `document.text[start:end]`.
    """

    number: int
    start: int
    end: int


class Chunker:
    """Cuts documents for one encoder. Thread-safe.

    Attributes:
        encoder: Whose tokens are counted.
        chunking: How documents are cut; None leaves each whole, and the encoder reads its beginning.
    """

    def __init__(self, encoder: Encoder, chunking: Chunking | None) -> None:
        """Check that the model can read such passages.

        Raises:
            ChunkingError: Passages longer than the window, or an overlap of half a passage or more. The default
                overlap gives way instead.
        """
        self.encoder = encoder
        self.chunking = chunking
        self._window = encoder.document_room
        if chunking is not None:
            _check(chunking, self._window)

    def split(self, documents: Sequence[Document]) -> list[list[Passage]]:
        """The passages of each document, in the order of its text: one where it fits.

        They hold every character of the text; each ends behind the one before it, and begins at most `overlap` tokens
        before that one's end, where a sentence does if that one ended with a sentence. A title takes at most half of
        the window from them; see `passage_text`.

        Args:
            documents: Any; their tokens are counted in one call.
        """
        found = [[Passage(0, 0, len(document.text))] for document in documents]
        if self.chunking is None:
            return found
        spans = self.encoder.token_spans([document.passage for document in documents])
        longer: dict[int, tuple[TokenizedText, Rooms]] = {}
        for position, (document, tokens) in enumerate(zip(documents, spans, strict=True)):
            text = _of_text(document, tokens)
            if len(tokens) > self._window or len(text) > (self.chunking.tokens or self._window):
                longer[position] = TokenizedText.of(document.text, text), self._rooms(len(tokens) - len(text))
        for position, passages in self._cut_all(documents, longer).items():
            found[position] = passages
        return found

    def passage_text(self, document: Document, passage: Passage) -> str:
        """What the encoder reads: the title, where the chunking has it before this passage, and the stretch of text.

        A title that leaves the stretch no room, and so is longer than half of the window, loses its end.
        """
        stretch = document.text[passage.start : passage.end]
        if self.chunking is None or not document.title:
            return " ".join(part for part in (document.title, stretch) if part)
        if passage.number and not self.chunking.title:
            return stretch
        return " ".join(part for part in (self._title(document.title, stretch), stretch) if part)

    def _rooms(self, title: int) -> Rooms:
        """What a title of so many tokens leaves."""
        assert self.chunking is not None
        most = self.chunking.tokens or self._window
        beside_title = self._window - min(title, self._window // 2)
        return Rooms(min(most, beside_title), min(most, beside_title if self.chunking.title else self._window))

    def _title(self, title: str, stretch: str) -> str:
        if len(title.encode()) <= self._window // 2:  # no tokenizer makes more tokens than bytes
            return title
        spans, text = self.encoder.token_spans([title, stretch])
        room = self._window - len(text)
        return title if len(spans) <= room else title[: spans[room - 1, 1]]

    def _cut_all(
        self, documents: Sequence[Document], longer: dict[int, tuple[TokenizedText, Rooms]]
    ) -> dict[int, list[Passage]]:
        """The passages of the documents at these positions.

        Read by itself a stretch may have more tokens than in its text: where a word was cut in two, or by a tokenizer
        that marks the space before a word. Its document is then cut again with that much less room.
        """
        found: dict[int, list[Passage]] = {}
        spared = dict.fromkeys(longer, 0)
        while spared:
            for position, less in spared.items():
                tokens, rooms = longer[position]
                found[position] = self._cut(tokens, Rooms(*(max(1, room - less) for room in rooms)))
            over = self._over(documents, {position: found[position] for position in spared}, longer)
            spared = {
                position: spared[position] + excess
                for position, excess in over.items()
                if excess > 0 and spared[position] < max(longer[position][1])
            }
        return found

    def _cut(self, tokens: TokenizedText, rooms: Rooms) -> list[Passage]:
        assert self.chunking is not None
        overlap = min(self.chunking.overlap, (rooms.later - 1) // 2)
        stretches = tokens.stretches(rooms, overlap)
        return [Passage(number, *tokens.characters(*stretch)) for number, stretch in enumerate(stretches)]

    def _over(
        self,
        documents: Sequence[Document],
        passages: dict[int, list[Passage]],
        longer: dict[int, tuple[TokenizedText, Rooms]],
    ) -> dict[int, int]:
        """By how many tokens the worst passage of each document is longer than its room."""
        each = [(position, passage) for position, some in passages.items() for passage in some]
        spans = self.encoder.token_spans([documents[position].text[one.start : one.end] for position, one in each])
        over = dict.fromkeys(passages, 0)
        for (position, passage), tokens in zip(each, spans, strict=True):
            room = longer[position][1][min(passage.number, 1)]
            over[position] = max(over[position], len(tokens) - room)
        return over


def _of_text(document: Document, spans: NDArray[np.int32]) -> NDArray[np.int32]:
    """The tokens of a document's text, of all that `Document.passage` has."""
    offset = len(document.passage) - len(document.text)
    first = np.searchsorted(spans[:, 1], offset, side="right")
    return np.maximum(spans[first:] - offset, 0)  # a token may hold the space before its word


def _check(chunking: Chunking, window: int) -> None:
    tokens = chunking.tokens or window
    if tokens > window:
        raise ChunkingError(
            f"passages of {tokens} tokens are longer than the {window} that this model reads; ask for {window} or "
            "fewer (--passage-tokens), or for none, which takes as many as fit"
        )
    if chunking.overlap != DEFAULT_OVERLAP and 2 * chunking.overlap >= tokens:
        raise ChunkingError(
            f"an overlap of {chunking.overlap} tokens is not less than half of a passage of {tokens}; ask for "
            f"{(tokens - 1) // 2} or fewer (--overlap)"
        )
