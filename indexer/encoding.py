"""Documents to encoded passages: what a build writes, and which documents have no vector.

A passage without a word that the model knows has no vector: a page of symbols, say. Alone it is no reason to lose the
document that holds it; a document all of whose passages are so is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

from indexer.chunking import Chunker, Passage
from indexer.documents import Document
from indexer.points import make_points
from indexer.store import Point
from model.encoder import Encoder, Encoding, EncodingError, NoWords


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """A document with the passages that have a vector, numbered without a gap.

    Attributes:
        document: What was encoded.
        passages: At least one.
        encodings: One for each.
        wordless: Passages that were left out, since they hold no word that the model knows.
    """

    document: Document
    passages: list[Passage]
    encodings: list[Encoding]
    wordless: int

    @property
    def points(self) -> list[Point]:
        """As they are stored; the first one tells how many were cut, for a build that copies them."""
        points = make_points(self.document, self.passages, [encoding.vector for encoding in self.encodings])
        if self.truncated:
            points[0].payload["truncated"] = self.truncated
        return points

    @property
    def truncated(self) -> int:
        """Passages of which the model saw less than the whole."""
        return self.wordless + sum(encoding.truncated for encoding in self.encodings)


class Encoded(NamedTuple):
    """What came of some documents, both in their order.

    Attributes:
        documents: Those that have a vector.
        refused: The others, with the reason.
    """

    documents: list[EncodedDocument]
    refused: list[tuple[Document, str]]


def encode_passages(chunker: Chunker, documents: Sequence[Document]) -> Encoded:
    """Cut documents into passages and encode all of them together."""
    passages = chunker.split(documents)
    texts = [
        chunker.passage_text(document, passage)
        for document, some in zip(documents, passages, strict=True)
        for passage in some
    ]
    outcomes = iter(_encode(chunker.encoder, texts))
    found = Encoded([], [])
    for document, some in zip(documents, passages, strict=True):
        outcome = list(islice(outcomes, len(some)))
        if (reason := _refusal(outcome)) is None:
            found.documents.append(_kept(document, some, outcome))
        else:
            found.refused.append((document, reason))
    return found


def _encode(encoder: Encoder, texts: Sequence[str]) -> list[Encoding | EncodingError]:
    """The encoding of each text, or why it has none."""
    outcomes: dict[int, Encoding | EncodingError] = {}
    left = list(range(len(texts)))
    while left:
        try:
            outcomes |= zip(left, encoder.encode_documents([texts[row] for row in left]), strict=True)
        except EncodingError as error:
            outcomes |= {left[position]: error for position in error.positions}
        left = [row for row in left if row not in outcomes]
    return [outcomes[row] for row in range(len(texts))]


def _refusal(outcomes: Sequence[Encoding | EncodingError]) -> str | None:
    """Why a document of these passages is not stored; None when it is."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, EncodingError)]
    if len(errors) == len(outcomes) or not all(isinstance(error, NoWords) for error in errors):
        return errors[0].reason
    return None


def _kept(
    document: Document, passages: Sequence[Passage], outcomes: Sequence[Encoding | EncodingError]
) -> EncodedDocument:
    pairs = zip(passages, outcomes, strict=True)
    kept = [(passage, outcome) for passage, outcome in pairs if isinstance(outcome, Encoding)]
    return EncodedDocument(
        document,
        [replace(passage, number=number) for number, (passage, _) in enumerate(kept)],
        [encoding for _, encoding in kept],
        wordless=len(passages) - len(kept),
    )
