"""How the terminal shows an answer."""

from rich.console import Console, Group
from rich.padding import Padding
from rich.text import Text

from service.schemas import ResultOut, SearchResponse

BAR = 16
"""Cells of the longest score bar."""


def show_answer(answer: SearchResponse) -> None:
    """Print the results, best first, and how the answer came about."""
    console = Console(highlight=False)
    best = max((abs(result.score) for result in answer.results), default=1.0)
    for rank, result in enumerate(answer.results, start=1):
        console.print(_result(rank, result, best))
    meta = answer.meta
    took = sum(meta.took_ms.values())
    assert meta.index.documents is not None  # nobody is confined who asks without a service
    found = f"{len(answer.results)} of {meta.index.documents:,} documents" if answer.results else "Nothing found"
    console.print(f"{found} · {meta.mode} · index {meta.index.name} · {meta.model.name} · {took:.0f} ms", style="dim")
    if not meta.complete:
        console.print("More documents may match: the best passages belong to these few.", style="yellow")
    if meta.query.truncated:
        console.print(f"The query has {meta.query.tokens} tokens; the model read only its beginning.", style="yellow")


def _result(rank: int, result: ResultOut, best: float) -> Group:
    where = (_place(result.passage.number, result.passage.of), "dim")
    head = Text.assemble((f"{rank:>2}  ", "dim"), (result.title or result.id, "bold"), where)
    lines = [head, _scores(result, best)]
    if result.highlights:
        lines.append(Text.assemble(*((run.text, "bold cyan" if run.match else "") for run in result.highlights)))
    if result.url:
        lines.append(Text(result.url, "dim"))
    return Group(lines[0], *(Padding(line, (0, 0, 0, 4), expand=False) for line in lines[1:]), Text())


def _place(number: int, of: int) -> str:
    return f"  passage {number} of {of}" if of > 1 else ""


def _scores(result: ResultOut, best: float) -> Text:
    text = Text(f"{result.score:.4f}")
    if result.parts is not None:
        for name, part, style in (("cls", result.parts.cls, "blue"), ("ot", result.parts.ot, "green")):
            text.append(f"  {name} {part:.4f} ", "dim").append("▇" * round(BAR * max(part, 0.0) / best), style)
    return text
