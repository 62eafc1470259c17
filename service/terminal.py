"""How the terminal shows an answer: in colours and as wide as it is, and plain when another program reads it."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator

from rich.console import Console, Group
from rich.padding import Padding
from rich.text import Text

from service.asking import Options, answer
from service.schemas import PartsOut, ResultOut, SearchResponse, TermOut
from service.searcher import QueryRefused, Searcher

BAR = 24
"""Cells of the longest score bar; a narrow terminal has a shorter one."""

WORDS = 8
"""Words of a result that `--explain` shows."""


UNBOUNDED = 100_000
"""Columns of what is no terminal: a program that reads the output wants each line whole."""


def open_console() -> Console:
    """The terminal, as wide as it is, or the file or program that standard output goes to."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = UNBOUNDED
    return console


class Session:
    """Asks and shows; the model is loaded once.

    Args:
        searcher: Answers.
        options: What every query is asked with.
        as_json: Print what the service would answer; of many queries, one line each.
    """

    def __init__(self, searcher: Searcher, options: Options, *, as_json: bool) -> None:
        self._searcher = searcher
        self._options = options
        self._as_json = as_json
        self._console = open_console()

    def ask(self, query: str, *, indent: int | None = 2) -> bool:
        """Whether anything was found.

        Raises:
            QueryRefused: The query has no vector.
        """
        response = answer(self._searcher, query, self._options)
        if self._as_json:
            print(response.model_dump_json(exclude_none=True, indent=indent))
        else:
            show_answer(self._console, response)
        return bool(response.results)

    def ask_all(self, queries: Iterable[str]) -> bool:
        """Whether anything was found for any of them; a query that is refused is told of, and the next one asked."""
        found = False
        for query in queries:
            try:
                found |= self.ask(query, indent=None)
            except QueryRefused as error:
                print(f"dupmae: {error}", file=sys.stderr)
        return found


def show_answer(console: Console, answer: SearchResponse) -> None:
    """Print the results, best first, and how the answer came about."""
    best = max((abs(result.score) for result in answer.results), default=1.0)
    for rank, result in enumerate(answer.results, start=1):
        console.print(_result(console, rank, result, best))
    meta = answer.meta
    took = sum(meta.took_ms.values())
    assert meta.index.documents is not None  # nobody is confined who asks without a service
    found = f"{len(answer.results)} of {meta.index.documents:,} documents" if answer.results else "Nothing found"
    console.print(Text(f"{found} · {meta.mode} · index {meta.index.name} · {meta.model.name} · {took:.0f} ms", "dim"))
    if not meta.complete:
        console.print(Text("More documents may match: the best passages belong to these few.", "yellow"))
    if meta.query.truncated:
        cut = f"The query has {meta.query.tokens} tokens; the model read only its beginning."
        console.print(Text(cut, "yellow"))


def _result(console: Console, rank: int, result: ResultOut, best: float) -> Group:
    where = (_place(result.passage.number, result.passage.of), "dim")
    head = Text.assemble((f"{rank:>2}  ", "dim"), (result.title or result.id, "bold"), where)
    lines = [_scores(console, result, best)]
    if result.highlights:
        lines.append(Text.assemble(*((run.text, "bold yellow" if run.match else "") for run in result.highlights)))
    if result.url:
        lines.append(Text(result.url, "dim"))
    if result.explain:
        lines.append(_words(result.explain))
    return Group(head, *(Padding(line, (0, 0, 0, 4), expand=False) for line in lines), Text())


def _place(number: int, of: int) -> str:
    return f"  passage {number} of {of}" if of > 1 else ""


def _scores(console: Console, result: ResultOut, best: float) -> Text:
    text = Text(f"{result.score:.4f}")
    if result.parts is not None:
        text.append(f" = cls {result.parts.cls:.4f} + ot {result.parts.ot:.4f}", "dim")
        if console.is_terminal:
            cells = min(BAR, console.width // 4)
            text = Text.assemble(*_bar(result.parts, cells / best), "  ", text)
    return text


def _bar(parts: PartsOut, scale: float) -> Iterator[tuple[str, str]]:
    for part, style in ((parts.cls, "blue"), (parts.ot, "yellow")):
        yield "▇" * round(scale * max(part, 0.0)), style


def _words(terms: list[TermOut]) -> Text:
    """The words that add most; `+` before those that the model added to the query."""
    adds: defaultdict[str, float] = defaultdict(float)
    for term in terms:
        adds[term.word if term.in_query else f"+{term.word}"] += term.contribution
    words = sorted(adds.items(), key=lambda each: -each[1])
    rest = f"  and {len(words) - WORDS} more" if len(words) > WORDS else ""
    return Text("  ".join(f"{word} {added:.3f}" for word, added in words[:WORDS]) + rest, "cyan")
