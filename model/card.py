"""The model card of an adapted model, written from its facts: what it was, what was done to it, what that was worth."""

from typing import Any

from model.export import Facts

BEFORE, AFTER = "held-out known items, before", "held-out known items, after"
"""Names in the evaluation table of the manifest."""


def adapted_card(facts: Facts) -> str:
    """Markdown for MODEL_CARD.md.

    Args:
        facts: As `adapt` makes them: `training` has `runs` and `adapted_to`, `evaluation` both tables.
    """
    data: Any = facts.training["adapted_to"]
    runs: Any = facts.training["runs"]
    before, after = facts.evaluation[BEFORE], facts.evaluation[AFTER]
    figures = "\n".join(f"| {name} | {before[name]:.3f} | {after[name]:.3f} |" for name in before)
    history = "\n".join(f"{number}. `{run}`" for number, run in enumerate(runs, 1))
    return f"""# {facts.name}

{facts.base_model}, adapted by `dupmae model adapt` to text without labels.

## What it was trained on

{data["texts"]:,} texts of {", ".join(data["files"])}, and {data["pairs"]:,} weak pairs made of them: a title with the
beginning of its text, or a sentence with the passage that it was taken from.
Records that people made: {", ".join(data["records"]) or "none"}.

All runs so far, the oldest first:

{history}

## Figures

{data["queries"]:,} texts were held out of all training. Each gave one weak pair, whose query has one right answer among
{data["passages"]:,} passages. Measured in float32, before export:

| | before | after |
|---|---|---|
{figures}

These queries were made as the training pairs were, so a gain here is a gain in knowing such text. What it is worth for
queries that people type, only such queries can tell: `dupmae evaluate`.

## Limits

Those of {facts.base_model}; read its card. On other text this model may be worse than that one: nobody has looked.
An index of another model's vectors has to be built anew for it.

Licence: {facts.licence}, as {facts.base_model}. The text that it was adapted to may set terms of its own.
"""
