"""Passages hold every character, fit the model, and end where something ends."""

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.chunking import Chunker, ChunkingError, Passage
from indexer.documents import Document
from indexer.encoding import encode_passages
from indexer.points import passage_text, place
from indexer.sentences import borders
from indexer.store import Chunking
from model.encoder import Encoder

WINDOW = 62
"""Tokens that the tiny encoder reads beside [CLS] and [SEP]."""

WORD = st.sampled_from(
    "the King of Water, energy. Sound! x quizzicality 42 e.g. \n \n\n é İ ☃ 한국어 猫。 end?".split(" ")
)
WORDS = st.lists(WORD, max_size=220).map(" ".join)
LETTERS = st.lists(st.sampled_from([*"aBc .!-\n\té\u0301\u200b한猫☃\U0001f600", "ness"]), max_size=300).map("".join)
TEXT = WORDS | LETTERS | st.text(max_size=300) | st.builds(lambda one, two: one + two, WORDS, LETTERS)
TITLE = st.just("") | st.lists(WORD, max_size=6).map(" ".join) | WORDS
DOCUMENT = st.builds(Document, st.just("d"), TITLE, TEXT)
CHUNKING = st.builds(
    Chunking, tokens=st.none() | st.integers(16, WINDOW), overlap=st.sampled_from([0, 3, 7, 32]), title=st.booleans()
)

many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def tokens(encoder: Encoder, text: str) -> int:
    return len(encoder.token_spans([text])[0])


def sentences(count: int, words: int = 9) -> list[str]:
    return [" ".join(["The", *["water"] * (words - 3), f"{number}."]) for number in range(100, 100 + count)]


@many
@given(documents=st.lists(DOCUMENT, min_size=1, max_size=4), chunking=CHUNKING)
def test_passages_hold_every_character_in_order_and_none_within_another(
    tiny_encoder: Encoder, documents: list[Document], chunking: Chunking
) -> None:
    for document, passages in zip(documents, Chunker(tiny_encoder, chunking).split(documents), strict=True):
        assert [passage.number for passage in passages] == list(range(len(passages)))
        assert (passages[0].start, passages[-1].end) == (0, len(document.text))
        for one, two in pairwise(passages):
            assert one.start < two.start <= one.end < two.end


@many
@given(document=DOCUMENT, chunking=CHUNKING)
def test_no_passage_is_longer_than_the_model_reads(
    tiny_encoder: Encoder, document: Document, chunking: Chunking
) -> None:
    chunker = Chunker(tiny_encoder, chunking)
    (passages,) = chunker.split([document])
    for passage in passages:
        assert tokens(tiny_encoder, chunker.passage_text(document, passage)) <= WINDOW
        stretch = document.text[passage.start : passage.end]
        assert tokens(tiny_encoder, stretch) <= (chunking.tokens or WINDOW)


@many
@given(document=DOCUMENT, chunking=CHUNKING)
def test_a_passage_begins_at_most_the_overlap_before_the_end_of_the_last(
    tiny_encoder: Encoder, document: Document, chunking: Chunking
) -> None:
    (passages,) = Chunker(tiny_encoder, chunking).split([document])
    (spans,) = tiny_encoder.token_spans([document.text])
    for one, two in pairwise(passages):
        assert sum(two.start <= start < one.end for start, _ in spans) <= chunking.overlap


@many
@given(document=DOCUMENT, others=st.lists(DOCUMENT, max_size=3))
def test_passages_do_not_depend_on_the_documents_beside(
    tiny_encoder: Encoder, document: Document, others: list[Document]
) -> None:
    chunker = Chunker(tiny_encoder, Chunking())
    assert chunker.split([*others, document])[-1] == chunker.split([document])[0]


@many
@given(document=DOCUMENT, chunking=st.builds(Chunking, title=st.booleans()))
def test_a_document_that_fits_is_one_passage_with_the_text_it_always_had(
    tiny_encoder: Encoder, document: Document, chunking: Chunking
) -> None:
    chunker = Chunker(tiny_encoder, chunking)
    if tokens(tiny_encoder, document.passage) > WINDOW:
        document = Document("d", "Gulls", document.text[:20])
    assert chunker.split([document]) == [[Passage(0, 0, len(document.text))]]
    assert chunker.passage_text(document, Passage(0, 0, len(document.text))) == document.passage


def test_a_long_text_is_cut_between_sentences_and_begins_again_with_one(tiny_encoder: Encoder) -> None:
    document = Document("d", "Water", " ".join(sentences(40)))
    passages = Chunker(tiny_encoder, Chunking(overlap=12)).split([document])[0]
    begins = {0, *borders(document.text).sentences}
    assert len(passages) > 5
    assert all(passage.start in begins and passage.end in {*begins, len(document.text)} for passage in passages)
    assert all(two.start < one.end for one, two in pairwise(passages))


def test_a_passage_ends_with_a_paragraph_rather_than_with_a_later_sentence(tiny_encoder: Encoder) -> None:
    long = sentences(12)
    text = " ".join(long[:4]) + "\n\n" + " ".join(long[4:])
    first = Chunker(tiny_encoder, Chunking()).split([Document("d", text=text)])[0][0]
    assert text[first.start : first.end] == " ".join(long[:4]) + "\n\n"


def test_a_paragraph_that_ends_early_is_no_passage_by_itself(tiny_encoder: Encoder) -> None:
    text = "A heading\n\n" + " ".join(sentences(12))
    first = Chunker(tiny_encoder, Chunking()).split([Document("d", text=text)])[0][0]
    assert first.end > 200


def test_a_sentence_longer_than_the_window_is_cut_between_words(tiny_encoder: Encoder) -> None:
    text = "Short. " + "quizzing " * 100
    passages = Chunker(tiny_encoder, Chunking()).split([Document("d", text=text)])[0]
    assert all(text[passage.start - 1] == " " for passage in passages[1:])


def test_a_word_longer_than_the_window_is_cut_too(tiny_encoder: Encoder) -> None:
    text = "xyzzy" * 20  # 100 letters, each a token
    document = Document("d", "Long", text)
    chunker = Chunker(tiny_encoder, Chunking())
    (passages,) = chunker.split([document])
    assert len(passages) > 1
    assert all(tokens(tiny_encoder, chunker.passage_text(document, passage)) <= WINDOW for passage in passages)


def test_a_word_that_has_more_tokens_once_it_is_cut_does_not_outgrow_the_room(tiny_encoder: Encoder) -> None:
    text = "-".join(["a" + "ness" * 20] * 12)  # `##ness` is one token, `ness` at the beginning of a passage is not
    (passages,) = Chunker(tiny_encoder, Chunking(tokens=16, overlap=0)).split([Document("d", text=text)])
    assert any(text[passage.start :].startswith("ness") for passage in passages[1:])
    assert all(tokens(tiny_encoder, text[passage.start : passage.end]) <= 16 for passage in passages)


def test_the_title_stands_before_every_passage_or_the_first_alone(tiny_encoder: Encoder) -> None:
    document = Document("d", "Gulls", " ".join(sentences(20)))
    for title, read in ((True, {True}), (False, {False})):
        chunker = Chunker(tiny_encoder, Chunking(title=title))
        (passages,) = chunker.split([document])
        texts = [chunker.passage_text(document, passage) for passage in passages]
        assert texts[0].startswith("Gulls ")
        assert {text.startswith("Gulls ") for text in texts[1:]} == read


@pytest.mark.parametrize("words", [40, 61, 62, 63, 500])
def test_a_title_that_fills_the_window_leaves_half_of_it_to_the_text(tiny_encoder: Encoder, words: int) -> None:
    document = Document("d", "sea " * words + "end", " ".join(sentences(20)))
    chunker = Chunker(tiny_encoder, Chunking())
    (passages,) = chunker.split([document])
    for passage in passages:
        text = chunker.passage_text(document, passage)
        assert text.endswith(document.text[passage.start : passage.end])
        assert text.startswith("sea " * 30)
        assert "end " not in text
        assert tokens(tiny_encoder, text) <= WINDOW


@pytest.mark.parametrize(
    ("chunking", "message"),
    [
        (Chunking(tokens=63), r"passages of 63 tokens are longer than the 62 .* --passage-tokens"),
        (Chunking(overlap=31), r"overlap of 31 tokens is not less than half of a passage of 62; ask for 30 or fewer"),
        (Chunking(tokens=20, overlap=10), r"half of a passage of 20; ask for 9 or fewer \(--overlap\)"),
    ],
)
def test_what_the_model_cannot_read_is_refused_with_the_remedy(
    tiny_encoder: Encoder, chunking: Chunking, message: str
) -> None:
    with pytest.raises(ChunkingError, match=message.replace(" --", r" \(--")):
        Chunker(tiny_encoder, chunking)


def test_without_chunking_every_document_is_one_passage(tiny_encoder: Encoder) -> None:
    long = Document("d", "Water", " ".join(sentences(40)))
    chunker = Chunker(tiny_encoder, None)
    assert chunker.split([long]) == [[Passage(0, 0, len(long.text))]]
    (encoded,) = encode_passages(chunker, [long]).documents
    assert encoded.truncated == 1


@pytest.mark.parametrize("title", [True, False])
def test_a_point_tells_the_text_it_was_encoded_from(tiny_encoder: Encoder, title: bool) -> None:
    documents = [Document("short", "A bird", "at sea"), Document("long", "Water", " ".join(sentences(30)))]
    chunking = Chunking(title=title)
    chunker = Chunker(tiny_encoder, chunking)
    for document, encoded in zip(documents, encode_passages(chunker, documents).documents, strict=True):
        assert encoded.truncated == 0
        for passage, point in zip(encoded.passages, encoded.points, strict=True):
            assert passage_text(point, chunking) == chunker.passage_text(document, passage)
            assert place(point) == (passage.number, len(encoded.passages), passage.start, passage.end)
            assert point.payload["text"] == document.text[passage.start : passage.end]
            assert point.payload["parent_id"] == document.id


def test_a_passage_without_a_known_word_is_left_out_and_the_document_stays(tiny_encoder: Encoder) -> None:
    text = " ".join([*sentences(6), *["☃"] * 200, *sentences(6)])
    document, symbols = Document("d", text=text), Document("e", text="☃ " * 200)
    encoded = encode_passages(Chunker(tiny_encoder, Chunking()), [symbols, document])
    assert [(refused.id, reason[:10]) for refused, reason in encoded.refused] == [("e", "no word in")]
    (kept,) = encoded.documents
    assert kept.document == document
    assert kept.wordless == kept.truncated > 0
    assert [place(point)[:2] for point in kept.points] == [(n, len(kept.points)) for n in range(len(kept.points))]
    assert kept.passages[-1].end == len(text)
