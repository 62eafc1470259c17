"""`dupmae index mine`: hard negatives for training."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from indexer.commands.options import AsJson, IndexName, extra, parsed, settings_of
from indexer.commands.printing import console

if TYPE_CHECKING:
    from indexer.negatives import Margin

Method = Literal["fused", "cls", "ot", "rrf", "bm25"]


def mine(
    ctx: typer.Context,
    queries: Annotated[Path, typer.Argument(help='{"query", "pos": [..]} a line, or a BEIR folder with judgements.')],
    out: Annotated[Path, typer.Argument(help="New file for training; a broken run goes on where it was.")],
    method: Annotated[Method, typer.Option(help="How the index is searched, or BM25.")] = "fused",
    index: IndexName = None,
    documents: Annotated[
        list[str] | None, typer.Option(help="For BM25: a source as `build` reads it, to search instead of the index.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of a BEIR folder: qrels/SPLIT.tsv.", show_default="train")] = None,
    exclude_split: Annotated[
        list[str] | None, typer.Option(help="Of a BEIR folder: what is judged there is never a negative.")
    ] = None,
    ranks: Annotated[str, typer.Option(help="FIRST:LAST hit that may be a negative; 1 is the best.")] = "10:100",
    draw: Annotated[int, typer.Option(min=1, help="Negatives for each query.")] = 15,
    margin: Annotated[
        str | None,
        typer.Option(
            help="Distance from the lowest positive: a share of its score (5%), an amount (1.5), or none.",
            show_default="5% with fused, cls and ot",
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep-negatives/--replace", help="What becomes of negatives that are there.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Queries searched at once.")] = 64,
    restart: Annotated[bool, typer.Option(help="Write OUT anew, whatever is left of another run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give the queries of a training file hard negatives: passages that a search ranks high and nobody called right."""
    from indexer.mine import MiningOptions
    from indexer.mine import mine as run
    from indexer.mine_sources import open_queries, open_ranker
    from indexer.negatives import RankWindow
    from indexer.report import mining_lines, show_count

    window, distance = parsed("--ranks", RankWindow.parse, ranks), _margin(margin, method)
    if (split or exclude_split) and not queries.is_dir():
        raise typer.BadParameter(f"{queries} is no BEIR folder, and only that has splits", param_hint="--split")
    if documents and method != "bm25":
        raise typer.BadParameter(f"{method} searches an index; only bm25 takes documents", param_hint="--documents")
    if out.exists() and not restart:  # said before anything is read, which may take long
        raise FileExistsError(f"{out} exists already; remove it, name another file, or --restart to write it anew")
    settings, left_out = settings_of(ctx, index=index), Counter[str]()
    with (
        open_queries(queries, split or "train", exclude_split or [], left_out) as (records, hidden),
        extra("train"),
        open_ranker(settings, method, documents or [], left_out) as ranker,
        show_count("mining", len(records)) as watch,
    ):
        options = MiningOptions(
            ranks=window,
            draw=draw,
            margin=distance,
            keep=keep,
            seed=seed,
            batch=batch,
            restart=restart,
            hidden=hidden,
        )
        tally = run(records, out, ranker, options, lambda tally: watch(tally.queries, tally.resumed))
    if as_json:
        typer.echo(json.dumps({"out": str(out), **asdict(tally), "left_out": left_out}, indent=2))
    else:
        console().print(*mining_lines(out, tally, draw, left_out), sep="\n")


def _margin(text: str | None, method: Method) -> "Margin | None":
    from indexer.negatives import Margin

    scored = method in ("fused", "cls", "ot")
    if text == "none" or (text is None and not scored):
        return None
    if not scored:
        raise typer.BadParameter(f"{method} has no score of a positive to keep away from", param_hint="--margin")
    return parsed("--margin", Margin.parse, text or "5%")
