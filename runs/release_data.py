"""Training records and dev records of the released model, out of the judged collections, enwiki and quiz questions.

    python -m runs.release_data DATA OUT

DATA holds `enwiki-{a,b,c}.jsonl.xz`, `medquad_pairs.jsonl.xz`, `opentriviaqa.tar.xz` and, under `beir/`, scifact,
squad_dev and fairytaleqa. OUT gets `train/*.jsonl`, `dev/*.jsonl` and `text.jsonl` (raw text). About ten minutes.

- Judged: train splits of SciFact, SQuAD and FairytaleQA, with BM25 negatives. Held out for dev: 120 claims of SciFact,
  4 of the 36 training articles of SQuAD, the dev split of FairytaleQA. What a test split judges is no negative.
- Titles of SciFact's abstracts ask for the abstracts; questions of MedQuAD for their answers (a twelfth of the subjects
  is held out).
- Quiz questions over enwiki, by distant supervision: the first paragraph that BM25 finds for question and answer
  together, and that holds the answer, is right; those it finds for the question, without the answer, are wrong.
- Key words, and sentences, of paragraphs of enwiki ask for their paragraphs; another one of the article is wrong.
- Beginnings of paragraphs, 30 to 100 words, ask for the paragraph next to theirs: long queries.
- `dev/stdlib.jsonl`: the documentation of Python, of which nothing is trained on.
"""

import json
import lzma
import math
import random
import re
import sys
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import bm25s
import Stemmer

from indexer.documents import Document
from indexer.stdlib import read_stdlib
from model.records import Example, to_line

MOST_PARAGRAPHS = 14
"""Of an article: the first ones say what it is about."""

ARTICLES_OF_TEXT = 9000
QUESTIONS = 16000
HELD_OUT_CLAIMS, HELD_OUT_ARTICLES = 120, 4
STEMMER = Stemmer.Stemmer("english")
STOP = frozenset(["the", "a", "an", "of", "in", "on", "and", "or", "to", "for", "is", "are", "was", "were", "be", "by"])
STOP |= {
    "with",
    "as",
    "at",
    "from",
    "that",
    "this",
    "it",
    "its",
    "their",
    "his",
    "her",
    "he",
    "she",
    "they",
    "which",
    "who",
}


class Paragraph(NamedTuple):
    """One of an article of enwiki."""

    title: str
    text: str

    @property
    def passage(self) -> str:
        """As a passage of a titled document is indexed."""
        return f"{self.title} {self.text}"


def main(data: Path, out: Path) -> None:
    """Write everything."""
    for folder in ("train", "dev"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    scifact(data / "beir" / "scifact", out, rng)
    squad(data / "beir" / "squad_dev", out, rng)
    fairytales(data / "beir" / "fairytaleqa", out, rng)
    medquad(data / "medquad_pairs.jsonl.xz", out, rng)
    stdlib(out, rng)
    paragraphs = list(read_paragraphs(sorted(data.glob("enwiki-?.jsonl.xz"))))
    raw_text(paragraphs, out / "text.jsonl")
    write(out / "train" / "trivia.jsonl", quiz(data / "opentriviaqa.tar.xz", paragraphs), negatives=2)
    write(out / "train" / "wiki.jsonl", weak(paragraphs), negatives=1, most=13000)
    write(out / "train" / "wiki-long.jsonl", long_queries(paragraphs, 4000), negatives=1)


# ---- judged collections


def scifact(folder: Path, out: Path, rng: random.Random) -> None:
    """Claims, and titles that ask for their abstracts."""
    passages, titles, queries, right = collection(folder, "train")
    claims = sorted(right)
    rng.shuffle(claims)
    dev, train = claims[:HELD_OUT_CLAIMS], claims[HELD_OUT_CLAIMS:]
    for path, chosen, draw in ((out / "train/scifact.jsonl", train, 8), (out / "dev/scifact.jsonl", dev, 12)):
        write(path, mined([Example(queries[q], texts(right[q], passages)) for q in chosen], passages.values()), draw)
    asking = [
        Example(title, (passages[id][len(title) :].strip(),))
        for id, title in titles.items()
        if len(title.split()) > 3 and len(passages[id]) > len(title) + 200
    ]
    found = mined(asking, [example.positives[0] for example in asking], first=2)
    write(out / "train/scifact-titles.jsonl", found, negatives=1, most=2500)


def squad(folder: Path, out: Path, rng: random.Random) -> None:
    """Questions about articles; dev has articles of its own."""
    passages, titles, queries, right = collection(folder, "article_train")
    articles = sorted({titles[id] for ids in right.values() for id in ids})
    held = set(rng.sample(articles, HELD_OUT_ARTICLES))
    examples = {q: Example(queries[q], texts(ids, passages)) for q, ids in right.items()}
    train = [example for q, example in examples.items() if titles[right[q][0]] not in held]
    dev = [example for q, example in examples.items() if titles[right[q][0]] in held]
    seen = [text for id, text in passages.items() if titles[id] in articles]
    pool = [text for id, text in passages.items() if titles[id] in articles and titles[id] not in held]
    write(out / "train/squad.jsonl", mined(train, pool), negatives=6)
    write(out / "dev/squad.jsonl", mined(rng.sample(dev, 300), seen), negatives=12)


def fairytales(folder: Path, out: Path, rng: random.Random) -> None:
    """Questions about sections of tales."""
    passages, _, queries, right = collection(folder, "train")
    dev, test = (collection(folder, split)[3] for split in ("dev", "test"))
    tested = {id for ids in test.values() for id in ids}
    unseen = tested | {id for ids in dev.values() for id in ids}
    train = [Example(queries[q], texts(ids, passages)) for q, ids in right.items()]
    write(
        out / "train/fairytaleqa.jsonl",
        mined(train, [text for id, text in passages.items() if id not in unseen]),
        negatives=6,
    )
    asked = rng.sample([Example(queries[q], texts(ids, passages)) for q, ids in dev.items()], 300)
    pool = [text for id, text in passages.items() if id not in tested]
    write(out / "dev/fairytaleqa.jsonl", mined(asked, pool), negatives=12)


def medquad(path: Path, out: Path, rng: random.Random) -> None:
    """Questions and answers; the first BM25 ranks are often answers too."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        pairs = [pair for pair in map(json.loads, lines) if len(pair["answer"]) > 60]
    subjects = sorted({pair["focus"] or "" for pair in pairs})
    rng.shuffle(subjects)
    held = set(subjects[: len(subjects) // 12])
    train, dev = (
        [Example(p["question"], (p["answer"][:1500],)) for p in pairs if ((p["focus"] or "") in held) == is_dev]
        for is_dev in (False, True)
    )
    found = mined(train, [example.positives[0] for example in train], first=4)
    write(out / "train/medquad.jsonl", found, negatives=1, most=5000)
    asked = rng.sample(dev, 200)
    write(out / "dev/medquad.jsonl", mined(asked, [example.positives[0] for example in dev]), negatives=10)


def stdlib(out: Path, rng: random.Random) -> None:
    """First sentences of Python's documentation ask for the rest of it."""
    examples = []
    for document in read_stdlib():
        if isinstance(document, Document):
            summary, _, rest = " ".join(document.text.split()).partition(". ")
            if len(summary.split()) >= 4 and len(rest.split()) >= 12:
                examples.append(Example(summary, (rest,)))
    pool = [example.positives[0] for example in examples]
    write(out / "dev/stdlib.jsonl", mined(rng.sample(examples, 250), pool), negatives=12)


def collection(folder: Path, split: str) -> tuple[dict[str, str], dict[str, str], dict[str, str], dict[str, list[str]]]:
    """Passages, titles and queries by id, and the right passages of a split's queries."""
    documents = [json.loads(line) for line in (folder / "corpus.jsonl").open(encoding="utf-8")]
    titles = {document["_id"]: document.get("title", "") for document in documents}
    passages = {document["_id"]: f"{titles[document['_id']]} {document['text']}".strip() for document in documents}
    asked = map(json.loads, (folder / "queries.jsonl").open(encoding="utf-8"))
    queries = {query["_id"]: query["text"] for query in asked}
    right: dict[str, list[str]] = {}
    for line in (folder / "qrels" / f"{split}.tsv").read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        if int(grade) > 0:
            right.setdefault(query, []).append(document)
    return passages, titles, queries, right


def texts(ids: Sequence[str], passages: dict[str, str]) -> tuple[str, ...]:
    """The passages of these ids, each once."""
    return tuple(dict.fromkeys(passages[id] for id in ids))


# ---- BM25


class Ranker:
    """BM25 over passages."""

    def __init__(self, passages: Iterable[str]) -> None:
        self.passages = list(dict.fromkeys(passages))
        self._index = bm25s.BM25()
        self._index.index(self._tokens(self.passages), show_progress=False)

    def best(self, queries: list[str], k: int) -> list[list[int]]:
        """Rows of the best k passages of each query."""
        rows, _ = self._index.retrieve(self._tokens(queries), k=min(k, len(self.passages)), show_progress=False)
        found: list[list[int]] = rows.tolist()
        return found

    def _tokens(self, given: list[str]) -> bm25s.tokenization.Tokenized:
        return bm25s.tokenize(given, stopwords="en", stemmer=STEMMER, show_progress=False)


def mined(examples: Sequence[Example], pool: Iterable[str], *, first: int = 1, last: int = 40) -> Iterator[Example]:
    """The examples with the passages that BM25 ranks from `first` to `last`, but for those that are right."""
    ranker = Ranker(pool)
    right = defaultdict[str, set[str]](set)
    for example in examples:
        right[example.query].update(example.positives)
    for example, rows in zip(examples, ranker.best([e.query for e in examples], last), strict=True):
        wrong = [ranker.passages[row] for row in rows[first - 1 :] if ranker.passages[row] not in right[example.query]]
        yield Example(example.query, example.positives, tuple(wrong))


def write(path: Path, examples: Iterable[Example], negatives: int, most: int | None = None) -> None:
    """Write records with at most so many negatives, half of them the first ones; a sample of `most` records."""
    rng, chosen = random.Random(0), list(examples)
    if most is not None and most < len(chosen):
        chosen = rng.sample(chosen, most)
    with path.open("w", encoding="utf-8") as lines:
        for example in chosen:
            hardest, rest = example.negatives[: negatives // 2], list(example.negatives[negatives // 2 :])
            drawn = rng.sample(rest, min(negatives - len(hardest), len(rest)))
            print(to_line(Example(example.query, example.positives, (*hardest, *drawn))), file=lines)
    print(f"{path}: {len(chosen):,} records", flush=True)


# ---- enwiki


def read_paragraphs(paths: Sequence[Path]) -> Iterator[Paragraph]:
    """The first paragraphs of each article that are neither headings nor lists."""
    for path in paths:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for article in map(json.loads, lines):
                fit = [text for text in article["text"].split("\n") if 150 <= len(text) <= 1500]
                yield from (Paragraph(article["title"], text[:900]) for text in fit[:MOST_PARAGRAPHS])


def raw_text(paragraphs: Iterable[Paragraph], path: Path) -> None:
    """Articles to pre-train on."""
    articles = [(title, [p.text for p in each]) for title, each in groupby(paragraphs, key=lambda p: p.title)]
    random.Random(5).shuffle(articles)
    with path.open("w", encoding="utf-8") as lines:
        for title, body in articles[:ARTICLES_OF_TEXT]:
            print(json.dumps({"title": title, "text": "\n".join(body)}, ensure_ascii=False), file=lines)


def quiz(path: Path, paragraphs: Sequence[Paragraph]) -> Iterator[Example]:
    """Quiz questions with a paragraph that holds the answer, and others that BM25 takes for one."""
    ranker = Ranker(paragraph.passage for paragraph in paragraphs)
    asked = list(dict.fromkeys(read_questions(path)))
    random.Random(0).shuffle(asked)
    for at in range(0, min(QUESTIONS, len(asked)), 200):
        chunk = asked[at : at + 200]
        with_answer = ranker.best([f"{question} {answer}" for question, answer in chunk], 3)
        without = ranker.best([question for question, _ in chunk], 24)
        for (question, answer), likely, found in zip(chunk, with_answer, without, strict=True):
            holding, lacking = (
                [ranker.passages[row] for row in rows if (_plain(answer) in _plain(ranker.passages[row])) == wanted]
                for rows, wanted in ((likely, True), (found, False))
            )
            if holding and len(lacking) >= 3 and _plain(answer) not in _plain(question):
                yield Example(question, (holding[0],), tuple(lacking[:10]))


def read_questions(path: Path) -> Iterator[tuple[str, str]]:
    """Questions and answers that make sense without the choices they came with."""
    choice = re.compile(r"\b(all|none|both|neither) of\b|which of (the following|these)|these|____", re.IGNORECASE)
    with tarfile.open(path) as archive:
        members = sorted((m for m in archive if m.isfile() and "/categories/" in m.name), key=lambda m: m.name)
        for member in members:
            file = archive.extractfile(member)
            assert file is not None
            for block in file.read().decode("utf-8", "replace").split("\n\n"):
                if not (found := re.match(r"#Q (.*?)\n\^ (.*?)(\n|$)", block.strip(), re.DOTALL)):
                    continue
                question, answer = (" ".join(found[n].split()) for n in (1, 2))
                fit = len(question.split()) >= 5 and len(question) <= 200 and len(answer) >= 3
                if fit and answer.lower() not in ("true", "false") and not choice.search(f"{question} {answer}"):
                    yield question, answer


def weak(paragraphs: Sequence[Paragraph]) -> Iterator[Example]:
    """Key words, title and key words, or a sentence of a paragraph ask for it."""
    rng = random.Random(1)
    articles = defaultdict[str, list[int]](list)
    for row, paragraph in enumerate(paragraphs):
        articles[paragraph.title].append(row)
    common = Counter[str]()
    for paragraph in rng.sample(paragraphs, min(60000, len(paragraphs))):
        common.update({word.lower() for word in re.findall(r"[A-Za-z][A-Za-z'-]+|\d+", paragraph.text)})
    for row in rng.sample(range(len(paragraphs)), min(70000, len(paragraphs))):
        title, text = paragraphs[row]
        others = [other for other in articles[title] if other != row]
        words = [w for w in dict.fromkeys(re.findall(r"[A-Za-z][A-Za-z'-]+|\d{4}", text)) if w.lower() not in STOP]
        if len(others) < 2 or len(words) < 6:
            continue
        kind, body = rng.choices(["words", "sentence", "title"], [0.4, 0.35, 0.25])[0], text
        query = ""
        if kind == "sentence":
            query, body = _sentence(text, rng)
        if not query:
            query = _key_words(words, common, rng)
            query = f"{title} {query}" if kind == "title" else query
            query = query.lower() if rng.random() < 0.6 else query
        # without the title now and then, so that titles are not all there is to match
        passage = body if kind != "title" and rng.random() < 0.3 else f"{title} {body}"
        yield Example(query, (passage,), tuple(paragraphs[other].passage for other in rng.sample(others, 1)))


def long_queries(paragraphs: Sequence[Paragraph], most: int) -> Iterator[Example]:
    """A paragraph asks for the one next to it; another one of the article is wrong. Half of them have their title."""
    rng, articles = random.Random(7), defaultdict[str, list[int]](list)
    for row, paragraph in enumerate(paragraphs):
        articles[paragraph.title].append(row)

    def passage(row: int) -> str:
        return paragraphs[row].passage if rng.random() < 0.5 else paragraphs[row].text

    for row in rng.sample(range(len(paragraphs)), min(60000, len(paragraphs))):
        words = paragraphs[row].text.split()
        others = [other for other in articles[paragraphs[row].title] if other != row]
        if len(others) < 4 or len(words) < 40 or not most:
            continue
        most -= 1
        query = " ".join(words[: rng.choice([30, 45, 60, 80, 100])])
        near = min(others, key=lambda other: abs(other - row))
        far = rng.choice([other for other in others if other != near])
        yield Example(query, (passage(near),), (passage(far),))


def _sentence(text: str, rng: random.Random) -> tuple[str, str]:
    """A sentence, and the text, mostly without it; an empty one if none is of a query's length."""
    sentences = re.split(r"(?<=[.!?])\s+", text)
    fit = [n for n, sentence in enumerate(sentences) if 6 <= len(sentence.split()) <= 28]
    if not fit or len(sentences) < 3:
        return "", text
    chosen = rng.choice(fit)
    rest = " ".join(sentences[:chosen] + sentences[chosen + 1 :])
    return sentences[chosen], rest if rng.random() > 0.35 else text


def _key_words(words: Sequence[str], common: Counter[str], rng: random.Random) -> str:
    """Two to seven of the words, rare ones sooner, in their order or in any."""
    weights = [max(0.1, math.log(60000 / (common[word.lower()] + 1))) ** 2 for word in words]
    chosen = dict.fromkeys(rng.choices(range(len(words)), weights, k=rng.choice([2, 3, 3, 4, 5, 7])))
    order = sorted(chosen) if rng.random() < 0.6 else list(chosen)
    return " ".join(words[position] for position in order)


def _plain(text: str) -> str:
    return f" {re.sub(r'[^a-z0-9]+', ' ', text.lower())} "


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
