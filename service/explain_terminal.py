"""How the terminal shows an explanation."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from service.explain_schemas import ExplainResponse, LonelyOut, WordOut
from service.terminal import open_console


def show_explanation(answer: ExplainResponse, title: str) -> None:
    """Print why a document has its score: both parts, where it stands, and what each word adds or misses."""
    console = open_console()
    passage, parts = answer.passage, answer.parts
    where = f"  passage {passage.number} of {passage.of}" if passage.of > 1 else ""
    console.print(Text.assemble((title, "bold"), (where, "dim")))
    console.print(f"score {answer.score:.4f} = cls {parts.cls:.4f} + ot {parts.ot:.4f}")
    console.print(Text(_standing(answer), "" if answer.in_results else "yellow"), "", sep="\n")
    console.print(_table(answer.words) if answer.words else Text("No word in common.", "yellow"))
    for side, words in (("query", answer.unmatched.query), ("document", answer.unmatched.document)):
        if words:
            console.print(Text.assemble((f"\nOnly in the {side}: ", "dim"), *_lonely(words)))


def _standing(answer: ExplainResponse) -> str:
    if answer.rank is not None:
        rank = f"rank {answer.rank:,}"
    elif answer.rank_at_least is not None:
        rank = f"rank {answer.rank_at_least:,} or later"
    else:
        rank = "rank not looked for"
    outside = "; the filter keeps it out" if answer.matches_filter is False else ""
    found = "in the results" if answer.in_results else "not in the results"
    return f"{rank} of {answer.meta.index.documents:,} documents, {found}{outside}"


def _table(words: Iterable[WordOut]) -> Table:
    table = Table("word", "query", "document", "adds", "", box=None, pad_edge=False)
    for column in table.columns[1:4]:
        column.justify = "right"
    for word in words:
        weights = (f"{word.query_weight:.3f}", f"{word.document_weight:.3f}", f"{word.contribution:.4f}")
        pieces = "" if word.entries == [word.word] or word.word.startswith("-") else f" {' '.join(word.entries)}"
        held = word.in_query and word.in_document
        name = Text.assemble((word.word, "bold cyan" if held else ""), (pieces, "dim"))
        table.add_row(name, *weights, Text(_origin(word), "dim"))
    return table


def _lonely(words: Iterable[LonelyOut]) -> list[tuple[str, str]]:
    shown = [(f"{word.word} {word.weight:.2f}", "" if word.in_text else "dim") for word in words]
    return [part for one in shown for part in ((", ", "dim"), one)][1:]


def _origin(word: WordOut) -> str:
    added = [side for side, held in (("query", word.in_query), ("document", word.in_document)) if not held]
    return f"added to the {' and the '.join(added)}" if added else ""
