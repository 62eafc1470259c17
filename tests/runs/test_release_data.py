"""Records for the released model: what asks for what, and that no right answer is called wrong."""

import tarfile
from io import BytesIO
from pathlib import Path

from model.records import Example, Records, to_line
from runs.mix import main as mix
from runs.release_data import Paragraph, mined, quiz, read_questions, weak, write

ARTICLES = {
    "Herring gull": ["The herring gull is a large gull that nests on cliffs and roofs of towns near the sea.",
                     "Its chicks peck at the red spot on the bill of a parent, which Tinbergen studied in Leiden.",
                     "Adults weigh about one kilogram and live for some thirty years. They eat nearly everything."],
    "Glass": ["Glass is made by melting quartz sand with soda and lime in a furnace at high temperature.",
              "The Venetians moved all their furnaces to the island of Murano in the year 1291 for fear of fire.",
              "Float glass lies on a bath of molten tin, which Pilkington invented. It is very flat. It is clear."],
}  # fmt: skip
PARAGRAPHS = [Paragraph(title, text) for title, texts in ARTICLES.items() for text in texts]
QUIZ = """#Q To which island did the Venetians move their glass furnaces?
^ Murano
A Murano
B Burano

#Q Which of these is a gull?
^ None of these
A Glass

#Q Glass is made of sand.
^ True
A True
B False
"""


def archive(folder: Path) -> Path:
    path, content = folder / "quiz.tar.xz", QUIZ.encode()
    with tarfile.open(path, "w:xz") as tar:
        member = tarfile.TarInfo("quiz/categories/world")
        member.size = len(content)
        tar.addfile(member, BytesIO(content))
    return path


def test_a_question_that_needs_its_choices_is_left_out(tmp_path: Path) -> None:
    assert list(read_questions(archive(tmp_path))) == [
        ("To which island did the Venetians move their glass furnaces?", "Murano")
    ]


def test_a_quiz_question_finds_the_paragraph_with_its_answer_and_none_with_it_is_wrong(tmp_path: Path) -> None:
    (found,) = quiz(archive(tmp_path), PARAGRAPHS)
    assert found.positives == (PARAGRAPHS[4].passage,)
    assert len(found.negatives) == 5
    assert not any("Murano" in text for text in found.negatives)


def test_what_asks_for_a_paragraph_is_made_of_it_and_another_one_of_the_article_is_wrong() -> None:
    found = list(weak(PARAGRAPHS))
    assert len(found) == len(PARAGRAPHS)
    for example in found:
        title = next(title for title, texts in ARTICLES.items() if any(t in example.negatives[0] for t in texts))
        words = {word.lower().strip(".,") for word in f"{title} {' '.join(ARTICLES[title])}".split()}
        assert {word.lower().strip(".,") for word in example.query.split()} <= words
        assert example.negatives[0] != example.positives[0]


def test_a_right_answer_to_the_same_question_is_no_negative() -> None:
    examples = [Example("glass", (PARAGRAPHS[3].passage,)), Example("glass", (PARAGRAPHS[5].passage,))]
    for example in mined(examples, [p.passage for p in PARAGRAPHS]):
        assert PARAGRAPHS[4].passage in example.negatives
        assert not {PARAGRAPHS[3].passage, PARAGRAPHS[5].passage} & set(example.negatives)


def test_written_records_keep_the_hardest_negatives_and_no_more_than_asked(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [Example("q", ("p",), tuple("abcdefgh"))] * 3, negatives=4, most=2)
    with Records(tmp_path / "a.jsonl") as records:
        assert len(records) == 2
        assert records[0].negatives[:2] == ("a", "b")
        assert len(set(records[0].negatives)) == 4


def test_a_mix_holds_queries_and_passages_of_every_file(tmp_path: Path) -> None:
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file in files:
        lines = [to_line(Example(f"{file.stem} query {n}", (f"{file.stem} passage {n}",))) for n in range(9)]
        file.write_text("\n".join(lines))
    mix(12, tmp_path / "mix.jsonl", files)
    text = (tmp_path / "mix.jsonl").read_text()
    assert [text.count(f"{name} {kind}") for name in "ab" for kind in ("query", "passage")] == [2, 4, 2, 4]
