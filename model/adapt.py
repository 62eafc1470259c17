"""Adaptation: from a model and somebody's own text, without labels, to a model for that text, in one go.

Some text is held out and judged on; pre-training goes on with the rest; the heads, from which the body has moved away,
are fitted again in closed form; a short fine-tuning on weak pairs, and on records where there are some, tunes all to
each other; the same is judged again. Cost: a checkpoint on the disk for each stage, and a copy of the text.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import JsonValue
from transformers import PreTrainedTokenizerBase

from model.artifact import MANIFEST, Artifact, Precision
from model.card import AFTER, BEFORE, adapted_card
from model.checkpoint import Checkpoint, load
from model.distributed import Ranks, joined
from model.dupmae import FusedEncoder
from model.encoder import EncodingError
from model.export import ExportError, Facts, default_facts, export
from model.finetune import finetune
from model.judge import judge
from model.lines import SourceError
from model.loop import FREE, check_length
from model.options import AdaptOptions, FinetuneOptions, PretrainOptions, TrainingError
from model.pretrain import pretrain
from model.records import Records
from model.stages import Figures, claim, figures, stage
from model.tokens import tokenized
from model.warm_start import calibrate_terms, refresh_heads, spread_projection
from model.weak_pairs import HELD_OUT, PAIRS, TEXTS, Counts, write

SAMPLE = 1000
"""Weak pairs whose texts the heads are fitted on."""

COMPARED = 100
"""Held-out passages that PyTorch and the artifact are compared on."""

TERM_LEARNING_RATE = 1e-3
"""Of gains and biases in fine-tuning, a fifth of the usual: they are good already."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sources:
    """What goes in.

    Attributes:
        start: Checkpoint, artifact, or BERT folder.
        texts: Files of raw text, see `corpus.read_texts`.
        records: Files of training records, which take turns with the weak pairs.
    """

    start: Path
    texts: tuple[Path, ...]
    records: tuple[Path, ...] = ()


class Adapted(NamedTuple):
    """What came out: how much was seen, and nDCG@10 on held-out pairs of `fused`, `cls` and `ot`."""

    counts: Counts
    before: Figures
    after: Figures


def adapt(
    out: Path, sources: Sources, options: AdaptOptions, *, restart: bool = False, say: Say = lambda text: None
) -> Adapted:
    """Adapt a model and write its artifact.

    Heads that nobody has trained, such as those of a BERT, are fitted before anything is judged, and anew after
    pre-training; all others are refreshed, to mean what they meant.

    Args:
        out: Folder for the artifact. `OUT.run` keeps the stages, from which the same call goes on.
        sources: Model and text.
        options: How.
        restart: Forget what an unfinished run left.
        say: Told what is done next.

    Raises:
        TrainingError: `out` is there; or an unfinished run had other sources or options; see also `loop.train`.
        SourceError: A file cannot be read, or holds too little.
        ArtifactError: The start is a damaged artifact, or the new one strays from the network.
    """
    if out.exists():
        raise TrainingError(f"{out} is there already; name another folder, or remove it")
    with joined(options.device, options.seed) as ranks, ExitStack() as opened:
        if ranks.size > 1:
            raise TrainingError("adapt is one process; start it without torchrun")
        # ---- what goes in, checked before it takes hours
        start = load(sources.start)
        run, served = out.with_name(out.name + ".run"), _served(out.name, sources.start, start)
        work = _Work(run / "text", options, ranks, served)
        check_length("max_tokens", options.max_tokens, start.model.encoder)
        records = [opened.enter_context(Records(path)) for path in sources.records]
        for file in records:
            if file.skipped:
                say(f"{file.path}: left out {', '.join(f'{count} {what}' for what, count in file.skipped.items())}")
        claim(run, _made_by(start, sources.texts, records, options), restart=restart)
        say(f"reading {', '.join(map(str, sources.texts))}")
        counts = _weak_pairs(sources.texts, work)
        say(f"{counts.texts:,} texts with {counts.pairs:,} pairs to train on; {counts.queries:,} are held out")
        pairs, held_out = (opened.enter_context(Records(work.text / name)) for name in (PAIRS, HELD_OUT))
        _check([pairs, *records], options)
        spread = pairs[:: max(1, len(pairs) // SAMPLE)][:SAMPLE]
        sample = [text for pair in spread for text in (pair.query, pair.positives[0])]

        # ---- what there is
        now, untrained = start, _untrained(start.model.encoder)
        if untrained:
            say(f"fitting heads, since nobody has trained those of {sources.start}")
            now = stage(run / "0-heads", lambda log: _fitted(now, sample))
        say(f"judging {sources.start}")
        before = figures(run / "before.json", lambda: _judged(now, held_out, work))

        # ---- what is made of it
        if options.pretrain_steps:
            old = copy.deepcopy(now.model.encoder)
            now = stage(run / "1-pretrained", lambda log: _pretrained(now, work, log))
            say("fitting the heads to the body as it is now")
            refreshed = _fitted if untrained else partial(_refreshed, old)
            now = stage(run / "2-refreshed", lambda log: refreshed(now, sample))
        if options.finetune_steps:
            now = stage(run / "3-fused", lambda log: _finetuned(now, [pairs, *records], work, log))

        # ---- what that is worth
        say("judging the result")
        done = Adapted(counts, before, figures(run / "after.json", lambda: _judged(now, held_out, work)))
        say(f"exporting to {out}")
        _export(out, now, _facts(served, now, sources, done), held_out, options.precision)
    return done


class _Work(NamedTuple):
    """What the stages know: the folder of text, and what the artifact will say of itself, lengths among it."""

    text: Path
    options: AdaptOptions
    ranks: Ranks
    served: Facts


# ---- what goes in


def _served(name: str, folder: Path, start: Checkpoint) -> Facts:
    """Lengths, numbers of terms and licence of START, under a new name."""
    if not (folder / MANIFEST).is_file():
        return default_facts(name, start.model.encoder, start.facts).model_copy(update={"base_model": folder.name})
    manifest = Artifact.open(folder).manifest
    if prompts := manifest.query_prompt + manifest.document_prompt:
        raise TrainingError(f"{folder} puts {prompts!r:.60} before texts, which training does not; start from another")
    same = {"licence", "rarity_weight", "k_query", "k_document", "max_query_tokens", "max_document_tokens"}
    return Facts(name=name, base_model=manifest.name, **manifest.model_dump(include=same))


def _made_by(
    start: Checkpoint, texts: Sequence[Path], records: Sequence[Records], options: AdaptOptions
) -> dict[str, JsonValue]:
    weights = hashlib.sha256()
    encoder = start.model.encoder
    for tensor in (*encoder.state_dict().values(), *([] if encoder.expansions is None else [encoder.expansions])):
        weights.update(tensor.numpy().tobytes())
    try:
        stats = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in texts]
    except OSError as error:
        raise SourceError(f"{error.filename}: {error.strerror}") from error
    chosen = options.model_dump(exclude={*FREE, "precision"})
    return {"start": weights.hexdigest(), "texts": stats, "records": [file.digest for file in records], **chosen}


def _weak_pairs(paths: Sequence[Path], work: _Work) -> Counts:
    if not work.text.exists():
        write(paths, work.text, max_words=work.options.max_tokens * 3 // 4, seed=work.options.seed)  # 3 words, 4 tokens
    return Counts.of(work.text)


def _check(files: Sequence[Records], options: AdaptOptions) -> None:
    for file in files if options.finetune_steps else ():
        if len(file) < options.batch_size:
            raise SourceError(
                f"{file.path}: {len(file)} records, fewer than batch_size={options.batch_size}; give more, or choose a "
                "smaller batch"
            )


# ---- the stages


def _untrained(encoder: FusedEncoder) -> bool:
    """Whether every term is as it was made; each way to train heads moves them."""
    return bool((encoder.terms.gain == 1).all() and (encoder.terms.bias == 0).all())


def _fitted(checkpoint: Checkpoint, sample: list[str]) -> Checkpoint:
    spread_projection(checkpoint, sample)
    calibrate_terms(checkpoint, sample[: SAMPLE // 2])  # holds (N, V)
    return checkpoint._replace(facts=checkpoint.facts.after("heads fitted to text, whitened"))


def _refreshed(before: FusedEncoder, checkpoint: Checkpoint, sample: list[str]) -> Checkpoint:
    refresh_heads(checkpoint, before, sample)
    return checkpoint._replace(facts=checkpoint.facts.after("heads refreshed on text"))


def _pretrained(start: Checkpoint, work: _Work, log: Path) -> Checkpoint:
    options = work.options
    runs = tokenized([work.text / TEXTS], start.tokenizer, options.max_tokens - 2, log / "tokens")
    chosen = PretrainOptions(
        **_shared(options),
        steps=options.pretrain_steps,
        learning_rate=options.pretrain_learning_rate,
        max_tokens=options.max_tokens,
        bow_weight=options.bow_weight,
    )
    return pretrain(start, runs, chosen, work.ranks, log)


def _finetuned(start: Checkpoint, files: Sequence[Records], work: _Work, log: Path) -> Checkpoint:
    options = work.options
    lengths = _lengths(work.served, options.max_tokens)
    chosen = FinetuneOptions(
        **_shared(options),
        **lengths,
        steps=options.finetune_steps,
        learning_rate=options.finetune_learning_rate,
        head_learning_rate=10 * options.finetune_learning_rate,
        term_learning_rate=TERM_LEARNING_RATE,
    )
    return finetune(start, files, chosen, work.ranks, log)


def _judged(checkpoint: Checkpoint, held_out: Records, work: _Work) -> Figures:
    encoder = checkpoint.model.encoder.to(work.ranks.device)
    lengths = FinetuneOptions(**_lengths(work.served, work.served.max_document_tokens))
    found = judge(encoder, checkpoint.tokenizer, held_out, lengths, checkpoint.facts.rarity_weight)
    encoder.to("cpu")
    return found


def _shared(options: AdaptOptions) -> dict[str, Any]:
    same = options.model_dump(include={"batch_size", "device", "save_every", "seed"})
    return {**same, "precision": options.training_precision}


def _lengths(served: Facts, most: int) -> dict[str, int]:
    return {
        "query_tokens": min(served.max_query_tokens, most),
        "document_tokens": min(served.max_document_tokens, most),
        "k_query": served.k_query,
        "k_document": served.k_document,
    }


# ---- what comes out


def _facts(served: Facts, result: Checkpoint, sources: Sources, done: Adapted) -> Facts:
    data = {"files": _names(sources.texts), "records": _names(sources.records), **done.counts._asdict()}
    evaluation = {BEFORE: done.before, AFTER: done.after}
    return served.model_copy(
        update={
            "training": {"runs": list(result.facts.history), "adapted_to": data},
            "evaluation": {
                name: {f"{part} nDCG@10": round(value, 4) for part, value in found.items()}
                for name, found in evaluation.items()
            },
        }
    )


def _export(out: Path, result: Checkpoint, facts: Facts, held_out: Records, precision: Precision) -> None:
    try:
        export(
            result.model.encoder,
            result.tokenizer,
            out,
            precision=precision,
            facts=facts,
            card=adapted_card(facts),
            texts=list(islice(_readable(held_out, result.tokenizer), COMPARED)),
        )
    except EncodingError as error:
        raise TrainingError(
            f"training left nothing of some texts ({error}); lower its rates, with --restart"
        ) from error
    except ExportError as error:
        raise ExportError(f"{error}; the stages are kept, so --precision fp32 would go on from there") from error


def _readable(records: Records, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Passages with a word that the tokenizer knows; the others have no bag of words, whatever the model."""
    special = set(tokenizer.all_special_ids)
    passages = (record.positives[0] for record in records)
    return (passage for passage in passages if not special.issuperset(tokenizer(passage)["input_ids"]))


def _names(paths: Sequence[Path]) -> list[JsonValue]:
    return [path.name for path in paths]
