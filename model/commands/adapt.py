"""`dupmae model adapt`: a model for somebody's own text in one command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.commands.options import Texts, train_extra
from model.flags import flags
from model.options import AdaptOptions

if TYPE_CHECKING:
    from model.adapt import Adapted


@flags(AdaptOptions)
def adapt(
    out: Annotated[Path, typer.Argument(help="New artifact folder; must not exist.")],
    texts: Texts,
    options: AdaptOptions,
    start: Annotated[
        Path | None, typer.Option(help="Checkpoint, artifact or BERT folder; the bundled model when not given.")
    ] = None,
    train: Annotated[
        list[Path] | None, typer.Option(help="Records of your own to train on too, see finetune; may be repeated.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew: forget an unfinished run.")] = False,
) -> None:
    """Make a model for your own text, of which nobody has labelled anything, and say whether it is better there.

    Pre-trains on, fits the heads again, fine-tunes on titles and sentences, exports. A part of the text is held out and
    judged on before and after. OUT.run keeps every stage; the same command goes on from there if it was interrupted.
    """
    with train_extra():
        from model.adapt import Sources
        from model.adapt import adapt as make
    from model.artifact import BUNDLED

    sources = Sources(start or BUNDLED, tuple(texts), tuple(train or ()))
    done = make(out, sources, options, restart=restart, say=lambda text: typer.echo(text, err=True))
    typer.echo("\n".join(_before_and_after(done)))
    typer.echo(f"\nNext: dupmae index build {' '.join(map(str, texts))} --artifact {out}")
    typer.echo(f"      dupmae evaluate BEIR_DIR --artifact {out}   (on queries that people asked, if you have some)")


def _before_and_after(done: "Adapted") -> list[str]:
    counts, before, after = done.counts, done.before, done.after
    better = after["fused"] > before["fused"]
    return [
        f"nDCG@10 of {counts.queries:,} held-out queries over {counts.passages:,} passages",
        f"{'':8}{'before':>8}{'after':>8}",
        *(f"{part:8}{before[part]:8.3f}{after[part]:8.3f}" for part in before),
        *([] if better else ["Fused search is NOT better than before: keep the old model, or try other options."]),
    ]
