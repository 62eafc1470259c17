"""Passages of documents that are longer than the model's window."""

from dataclasses import dataclass


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
