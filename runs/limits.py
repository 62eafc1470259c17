"""What a model is bad at, tried instead of claimed: pairs of passages of which one answers the query and one does not.

    python -m runs.limits model/pretrained docs/figures/data/limits.json

The pairs lie in `runs/contrasts/`, in our own words. An accuracy is the share of the pairs in which the passage that
answers has the higher score; equal scores count half, so who sees no difference is at .5. BM25 knows the words'
frequencies from the passages of the same set. The sets are small and made to be hard, so an accuracy here says where a
model fails, not how often that happens in a search. Intervals are Wilson's and take the pairs for independent.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.bm25 import Bm25
from indexer.ranker import vectors_or_none
from model.artifact import Artifact
from model.encoder import Encoder
from model.rarity import Rarity
from model.vector import FusedVector
from runs.results import Contrast, Limits, facts, wilson, write

CONTRASTS = Path(__file__).parent / "contrasts"
LANGUAGES = {"de": "German", "fr": "French", "es": "Spanish"}
DEPTHS = (0, 0.25, 0.5, 0.75, 1)
"""Where an answer stands in the window; 1 is its end."""

WINDOWS = 2
"""Length of a long document."""

Outcomes = Mapping[str, NDArray[np.float64]]
"""For each pair 1, .5 (equal scores) or 0, by ranking."""


class Pair(NamedTuple):
    """A query, the passage that answers it and one that does not; `kind` tells apart the pairs of a set."""

    query: str
    right: str
    wrong: str
    kind: str = ""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("out", type=Path, help="JSON file")
    parser.add_argument("--threads", type=int, default=1, help="of the encoder")
    arguments = parser.parse_args()
    result = measure(Encoder(Artifact.open(arguments.artifact), threads=arguments.threads))
    write(result, arguments.out)
    print("\n".join(table(result)))


def measure(encoder: Encoder) -> Limits:
    """All groups of sets."""
    groups = {
        "negation": negation(encoder),
        "numbers": numbers(encoder),
        "languages": languages(encoder),
        "long documents": long_documents(encoder),
    }
    return Limits(**facts(encoder), groups=groups)


def negation(encoder: Encoder) -> dict[str, Contrast]:
    """Queries with a `not` or `without`; the same passages and the query without it; and both of them right."""
    items = list(_read("negation"))
    negated = outcomes(encoder, [Pair(item["query"], item["right"], item["wrong"]) for item in items])
    plain = outcomes(encoder, [Pair(item["plain"], item["wrong"], item["right"]) for item in items])
    both = {name: (negated[name] == 1) * (plain[name] == 1) * 1.0 for name in negated}
    return {
        "negated": contrast("the query says not or without", negated),
        "plain": contrast("the same without the not", plain),
        "both": contrast("both of these right", both, chance=0.25),
    }


def numbers(encoder: Encoder) -> dict[str, Contrast]:
    """The same sentence with another number, date or unit; the same number written otherwise; and comparisons."""
    pairs = [Pair(**item) for item in _read("numbers")]
    found = outcomes(encoder, pairs)
    kinds = list(dict.fromkeys(pair.kind for pair in pairs))
    chosen = {kind: np.array([pair.kind == kind for pair in pairs]) for kind in kinds}
    return {"all": contrast("another number, date or unit", found)} | {
        kind: contrast(kind, {name: values[rows] for name, values in found.items()}, is_detail=True)
        for kind, rows in chosen.items()
    }


def languages(encoder: Encoder) -> dict[str, Contrast]:
    """An answer in a query's language, or in another, against answers in the query's language to all other queries."""
    items = list(_read("languages"))
    across = {name: _among_others(encoder, items, "en", to) for to, name in LANGUAGES.items()}
    within = {name: _among_others(encoder, items, to, to) for to, name in LANGUAGES.items()}
    names = ", ".join(LANGUAGES.values())
    sets = {
        "english": contrast("all in English", _among_others(encoder, items, "en", "en")),
        "within": contrast(f"all in {names}", _joined(within.values())),
        "across": contrast("English query, answer in these", _joined(across.values())),
    }
    for name in LANGUAGES.values():
        sets[f"within {name}"] = contrast(f"all in {name}", within[name], is_detail=True)
        sets[f"across {name}"] = contrast(f"English query, answer in {name}", across[name], is_detail=True)
    near = outcomes(encoder, [Pair(**item["en"]) for item in items])
    sets["near"] = contrast("all in English, against words of the query", near, is_detail=True)
    return sets


def _among_others(encoder: Encoder, items: Sequence[Mapping[str, Any]], asked: str, answered: str) -> Outcomes:
    """For each item the mean over the other items, whose answers are in the language of the queries."""
    pairs = [
        Pair(item[asked]["query"], item[answered]["right"], other[asked]["right"])
        for item in items
        for other in items
        if other is not item
    ]
    return {name: values.reshape(len(items), -1).mean(axis=1) for name, values in outcomes(encoder, pairs).items()}


def long_documents(encoder: Encoder) -> dict[str, Contrast]:
    """One sentence in filler of twice the model's window: at several depths of the window, and behind it."""
    items = [Pair(**item) for item in _read("long")]
    filler = (CONTRASTS / "filler.txt").read_text(encoding="utf-8").split()
    length = max(len(encoder.token_ids(text)) for item in items for text in (item.right, item.wrong))
    room = encoder.artifact.manifest.max_document_tokens - 2 - length
    starts = {f"answer at {depth:.0%} of the window": round(depth * room) for depth in DEPTHS}
    starts["answer behind the window"] = room + length + 2
    sets = {}
    for title, start in starts.items():
        before = fill(encoder, filler, start)
        after = fill(encoder, filler[::-1], WINDOWS * (room + length) - start - length)
        placed = [
            Pair(item.query, *(" ".join([*before, text, *after]) for text in (item.right, item.wrong)))
            for item in items
        ]
        sets[title] = contrast(title, outcomes(encoder, placed))
    return sets


def fill(encoder: Encoder, words: Sequence[str], tokens: int) -> list[str]:
    """As many of the words, again and again, as come to at most `tokens` tokens."""
    sizes = [len(encoder.token_ids(word)) for word in words]
    filled: list[str] = []
    while (left := tokens - sizes[len(filled) % len(words)]) >= 0:
        filled.append(words[len(filled) % len(words)])
        tokens = left
    return filled


def outcomes(encoder: Encoder, pairs: Sequence[Pair]) -> Outcomes:
    """Who is above whom, by the fused score, by each side of it, and by BM25 over all passages of the pairs."""
    passages = list(dict.fromkeys(text for pair in pairs for text in (pair.right, pair.wrong)))
    vectors = dict(zip(passages, vectors_or_none(encoder.encode_documents, passages), strict=True))
    queries = vectors_or_none(encoder.encode_queries, [pair.query for pair in pairs])
    if rarity := Rarity.wanted(filter(None, vectors.values()), encoder.artifact.manifest):
        queries = [query and rarity.weigh(query) for query in queries]
    rights, wrongs = (
        np.array([_scores(query, vectors[text]) for query, text in zip(queries, texts, strict=True)])
        for texts in ([pair.right for pair in pairs], [pair.wrong for pair in pairs])
    )
    found = {name: _outcome(rights[:, n], wrongs[:, n]) for n, name in enumerate(("fused", "cls", "ot"))}
    return found | {"bm25": _bm25(passages, pairs)}


def contrast(title: str, found: Outcomes, *, chance: float = 0.5, is_detail: bool = False) -> Contrast:
    """Accuracies with their intervals."""
    accuracy = {name: wilson(float(values.mean()), len(values)) for name, values in found.items()}
    return Contrast(title=title, pairs=len(found["fused"]), chance=chance, is_detail=is_detail, accuracy=accuracy)


def table(result: Limits) -> Iterator[str]:
    """The accuracies for people."""
    yield f"{result.model} ({result.precision}, {result.fingerprint[:12]}); accuracy [95 % interval]"
    for group, sets in result.groups.items():
        rankings = next(iter(sets.values())).accuracy
        yield f"{group:44} {'pairs':>5} " + " ".join(f"{name:17}" for name in rankings)
        for each in sets.values():
            cells = [f"{one.mean:.3f} [{one.low:.2f}, {one.high:.2f}]" for one in each.accuracy.values()]
            yield f"  {each.title:42} {each.pairs:>5} " + " ".join(f"{cell:17}" for cell in cells)


def _read(name: str) -> Iterator[dict[str, Any]]:
    with (CONTRASTS / f"{name}.jsonl").open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _scores(query: FusedVector | None, passage: FusedVector | None) -> tuple[float, float, float]:
    """Fused, CLS and OT; a text without a vector is never found."""
    if query is None or passage is None:
        return (-np.inf,) * 3
    parts = query.score(passage)
    return parts.score, parts.cls, parts.ot


def _outcome(right: NDArray[np.float64], wrong: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(right == wrong, 0.5, right > wrong)


def _bm25(passages: Sequence[str], pairs: Sequence[Pair]) -> NDArray[np.float64]:
    found = [
        {passages[hit.row]: hit.score for hit in hits}
        for hits in Bm25(passages).search([pair.query for pair in pairs], len(passages))
    ]
    rights, wrongs = (
        np.array([scores.get(text, 0.0) for scores, text in zip(found, texts, strict=True)])
        for texts in ([pair.right for pair in pairs], [pair.wrong for pair in pairs])
    )
    return _outcome(rights, wrongs)


def _joined(sets: Iterable[Outcomes]) -> Outcomes:
    columns = list(sets)
    return {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}


if __name__ == "__main__":
    main()
