"""Texts are cut where their sentences end, in any amount of text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.sentences import borders

SENTENCES = [
    "He came. | She left! | Did they? | Nobody knows… | So it ends.",
    'She said "no." | Then (as J. R. Gull wrote, e.g. in Fig. 3) she left.',
    "See Smith et al. 2004. | The U.S. Navy, Dr. Owl and St. Kilda vs. the rest.",
    "It cost 3.14 pounds. | 42 people came.",
    "A line that is broken\nin a sentence, with no stop \n| Then a heading\n| Another line",
    "one paragraph\n\n| another\r\n \r\n| and a third",
    "海鸥吃鱼。|企鹅「不飞。」|为什么？|就这样",
    "Σίγουρα. | Ναι! | Ещё раз. | Да.",
    "no sentence at all, and no end",
    "ends with white space. \n",
]


@pytest.mark.parametrize("marked", SENTENCES)
def test_sentences_begin_where_a_reader_would_say(marked: str) -> None:
    text = marked.replace("|", "")
    begin = [position - number for number, position in enumerate(_bars(marked))]
    expected = [next(at for at in range(start, len(text)) if not text[at].isspace()) for start in begin]
    assert borders(text).sentences == expected


def _bars(marked: str) -> list[int]:
    return [position for position, letter in enumerate(marked) if letter == "|"]


def test_a_blank_line_begins_a_paragraph_and_a_single_one_does_not() -> None:
    text = "One.\nTwo.\n\nThree.\n \t\nfour"
    assert [text[start:] for start in borders(text).paragraphs] == ["Three.\n \t\nfour", "four"]


@given(st.text(st.sampled_from("aA1.!?。 \n\t\r\"')(é\u0301☃"), max_size=60))
def test_whatever_begins_begins_everything_smaller_behind_white_space_or_a_stop(text: str) -> None:
    found = borders(text)
    assert set(found.paragraphs) <= set(found.sentences) <= set(found.words)
    assert all(some == sorted(set(some)) for some in found)
    for start in found.words:
        assert 0 < start < len(text)
        assert text[start - 1].isspace() or start in found.sentences
        assert not text[start].isspace() or start in found.sentences


@pytest.mark.parametrize("unit", [" ", ".", "\n", " \n", "。", '."', ". ", "a", ") "])
def test_a_million_of_anything_is_read_once(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    assert len(borders(f"x{text}x").words) <= len(text)  # a rule that reads twice over would not come back
