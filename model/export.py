"""Checkpoint to artifact: write the graph, the tokenizer and the manifest, and prove that they say what PyTorch says.

Nothing is left under the asked name unless the proof succeeds: the folder is made beside it and renamed last.
"""

import builtins
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from inspect import getdoc
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
import torch
from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from model import checkpoint
from model.artifact import (
    FORMAT_VERSION,
    GRAPH,
    MANIFEST,
    MODEL_CARD,
    TOKENIZER,
    Artifact,
    ArtifactError,
    Manifest,
    Precision,
    digest,
)
from model.dupmae import FusedEncoder
from model.encoder import Encoder, EncodingError
from model.graph import EncoderGraph
from model.half import LIMIT, HalfProducts, widest
from model.products import FloatProducts, Products, Weights
from model.quality import change, over_budget
from model.quantize import Int8Products, seen_inputs
from model.records import Records
from model.vector import FusedVector


class ExportError(ArtifactError):
    """The network cannot be exported, or the artifact strays from it by more than its budget."""


class Facts(BaseModel):
    """What the exporter cannot read from the network; each field is described in `artifact.Manifest`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    base_model: str = "unknown"
    licence: str = "unknown"
    rarity_weight: float | None = None
    k_query: int = 64
    k_document: int = 128
    max_query_tokens: int = 64
    max_document_tokens: int = 256
    query_prompt: str = ""
    document_prompt: str = ""
    training: dict[str, JsonValue] = {}
    evaluation: dict[str, dict[str, float]] = {}
    compatible_with: dict[str, float] = {}


def default_facts(name: str, encoder: FusedEncoder, known: checkpoint.Facts | None = None) -> Facts:
    """Facts for someone who has said nothing: what training used or measured, as far as that is `known`.

    Else the usual lengths, as far as the network has positions.
    """
    positions, facts = encoder.mlm.config.max_position_embeddings, known or checkpoint.Facts()
    said = {
        "rarity_weight": facts.rarity_weight,
        "k_query": facts.k_query,
        "k_document": facts.k_document,
        "max_query_tokens": facts.query_tokens or min(64, positions),
        "max_document_tokens": facts.document_tokens or min(256, positions),
        "training": {"runs": list(facts.history)} if facts.history else {},
        "evaluation": facts.evaluation,
    }
    return Facts.model_validate({"name": name, **{key: value for key, value in said.items() if value is not None}})


def read_facts(file: Path, known: Facts | None = None) -> Facts:
    """Facts from a JSON file, and from those `known` where the file says nothing.

    Raises:
        ExportError: It is not JSON, or a field is missing, unknown or of another type.
    """
    try:
        said = TypeAdapter(dict[str, JsonValue]).validate_json(file.read_bytes())
        return Facts.model_validate({**(known.model_dump() if known else {}), **said})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ExportError(f"{file}: {problems}. Fields: {', '.join(Facts.model_fields)}") from error


class Agreement(NamedTuple):
    """How far an artifact is from PyTorch, over some texts.

    Attributes:
        cls_error: The largest difference in any dimension, relative to the longest [CLS] vector.
        ot_error: The largest difference in any shared OT entry, relative to the greatest entry.
        overlap: The mean share of OT entries that both keep.
    """

    cls_error: float
    ot_error: float
    overlap: float


BUDGETS = {
    "fp32": Agreement(1e-4, 1e-4, 0.999),
    "fp16": Agreement(0.005, 0.005, 0.99),
    "int8": Agreement(0.2, 0.2, 0.9),
}


def export(
    encoder: FusedEncoder,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    precision: Precision,
    facts: Facts,
    card: str,
    texts: Sequence[str],
    judged: Sequence[Records] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Artifact:
    """Write an artifact.

    Args:
        encoder: On the CPU.
        tokenizer: The encoder's.
        folder: Must not exist.
        precision: Of the weights and of the products with them.
        facts: For the manifest.
        card: The text of MODEL_CARD.md.
        texts: Real texts to compare PyTorch and the artifact on; int8 is calibrated on them too.
        judged: Held-out records that both rank; what they lose goes to the manifest, if `quality` allows it.
        say: Gets a line for each of these files.

    Raises:
        ExportError: Another kind of network, no texts, the folder exists, the network is too wide for float16, or the
            artifact is over one of its budgets.
        SourceError: A file to judge on holds no record that can be.
    """
    _check(encoder, tokenizer, folder, facts)
    _check_names(judged)
    if not texts:
        raise ExportError("no text to compare PyTorch and the artifact on; give some that are like what is searched")
    encoder.eval()
    draft = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        products = _products(encoder, tokenizer, precision, texts, facts.max_document_tokens)
        ir.save(EncoderGraph(encoder, products).build(), draft / GRAPH)
        _save_tokenizer(tokenizer, draft / TOKENIZER)
        (draft / MODEL_CARD).write_text(card, encoding="utf-8")
        _save_manifest(encoder, draft, precision, facts)
        exported = Encoder(Artifact.open(draft))
        _verify(agreement(encoder, exported, texts), BUDGETS[precision])
        manifest = _judged(encoder, tokenizer, exported, judged, say)
        _write_manifest(manifest, draft)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Artifact(folder, manifest)


def agreement(encoder: FusedEncoder, exported: Encoder, texts: Sequence[str]) -> Agreement:
    """Compare the documents' vectors of PyTorch, text by text, with those of an artifact."""
    manifest = exported.artifact.manifest
    ids = [exported.input_ids(manifest.document_prompt + text, manifest.max_document_tokens) for text in texts]
    pairs = [
        (_reference(encoder, wanted, manifest.k_document), found.vector)
        for wanted, found in zip(ids, exported.encode_documents(texts), strict=True)
    ]
    cls_scale = max(float(np.abs(wanted.cls).max()) for wanted, _ in pairs)
    ot_scale = max(float(wanted.ot_values.max(initial=0)) for wanted, _ in pairs)
    return Agreement(
        max(float(np.abs(wanted.cls - found.cls).max()) for wanted, found in pairs) / cls_scale,
        max(_ot_error(wanted, found) for wanted, found in pairs) / ot_scale,
        float(np.mean([_overlap(wanted, found) for wanted, found in pairs])),
    )


def docstrings(count: int) -> list[str]:
    """Texts that are at hand everywhere: what Python says about its built-in names, longest first."""
    texts = {text for value in vars(builtins).values() if (text := getdoc(value))}
    return sorted(texts, key=lambda text: (-len(text), text))[:count]


def _check(encoder: FusedEncoder, tokenizer: PreTrainedTokenizerBase, folder: Path, facts: Facts) -> None:
    config = encoder.mlm.config
    if folder.exists():
        raise ExportError(f"{folder} exists; choose another folder or remove it")
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ExportError(f"a {type(tokenizer).__name__} has no tokenizer.json; load it with AutoTokenizer")
    if config.hidden_act != "gelu" or config.model_type != "bert":
        raise ExportError(f"only BERT with gelu can be exported, not {config.model_type} with {config.hidden_act}")
    for what, length in (("query", facts.max_query_tokens), ("document", facts.max_document_tokens)):
        if length > config.max_position_embeddings:
            raise ExportError(
                f"{length} tokens a {what}, but the network has {config.max_position_embeddings} positions; "
                f"lower max_{what}_tokens"
            )
    if sorted(encoder.special_ids.tolist()) != sorted(tokenizer.all_special_ids):
        raise ExportError(
            f"the encoder's special ids {sorted(encoder.special_ids.tolist())} are not the tokenizer's "
            f"{sorted(tokenizer.all_special_ids)}; load both from one checkpoint"
        )


def _products(
    encoder: FusedEncoder,
    tokenizer: PreTrainedTokenizerBase,
    precision: Precision,
    texts: Sequence[str],
    max_tokens: int,
) -> Callable[[Weights], Products]:
    if precision == "fp32":
        return FloatProducts
    ids: list[list[int]] = tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
    if precision == "fp16":
        _check_range(encoder, ids)
        return HalfProducts
    return partial(Int8Products, inputs=seen_inputs(encoder, ids))


def _check_range(encoder: FusedEncoder, texts: Sequence[Sequence[int]]) -> None:
    """A CPU multiplies in float32 whatever the graph says, so what overflows on a GPU is not seen when it runs here."""
    reached = widest(encoder, texts)
    if reached.size > LIMIT:
        raise ExportError(
            f"{reached.layer} reaches {reached.size:,.0f}, and float16 ends at {np.finfo(np.float16).max:,.0f}; "
            "export with --precision fp32"
        )


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, file: Path) -> None:
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())  # a copy, to leave the caller's as it is
    backend.no_padding()
    backend.no_truncation()
    backend.save(str(file))


def _save_manifest(encoder: FusedEncoder, folder: Path, precision: Precision, facts: Facts) -> None:
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        dense_dim=encoder.project.out_features,
        vocabulary_size=encoder.mlm.config.vocab_size,
        activation=encoder.terms.activation,
        precision=precision,
        fingerprint="",
        **facts.model_dump(),
    )
    _write_manifest(manifest.model_copy(update={"fingerprint": digest(folder, manifest)}), folder)


def _write_manifest(manifest: Manifest, folder: Path) -> None:
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _verify(found: Agreement, budget: Agreement) -> None:
    near = found.cls_error <= budget.cls_error and found.ot_error <= budget.ot_error
    if not (near and found.overlap >= budget.overlap):
        raise ExportError(f"the artifact strays from PyTorch: {found}, budget {budget}; nothing was written")


def _check_names(judged: Sequence[Records]) -> None:
    names = [records.path.name for records in judged]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ExportError(f"two files to judge on are called {twice[0]}; the manifest names them, so rename one")


def _judged(
    encoder: FusedEncoder,
    tokenizer: PreTrainedTokenizerBase,
    exported: Encoder,
    judged: Sequence[Records],
    say: Callable[[str], None],
) -> Manifest:
    """The manifest with what the export cost on each file."""
    changes = []
    for records in judged:
        try:
            changes.append(change(encoder, tokenizer, exported, records))
        except EncodingError as error:
            raise ExportError(f"{records.path}: the artifact has no vector for {error}; nothing was written") from error
        say(changes[-1].line())
    if problem := over_budget(changes):
        raise ExportError(
            f"the artifact ranks worse than the network: {problem}; nothing was written. "
            "int8 is calibrated on --texts: give some that are like what is searched, or choose a wider --precision"
        )
    manifest = exported.artifact.manifest
    figures = {f"{change.name} (export)": change.figures() for change in changes}
    return manifest.model_copy(update={"evaluation": {**manifest.evaluation, **figures}})


@torch.no_grad()
def _reference(encoder: FusedEncoder, ids: list[int], k: int) -> FusedVector:
    input_ids = torch.tensor([ids])
    cls, bag = encoder(input_ids, torch.ones_like(input_ids), k)
    kept = bag.values[0] > 0
    order = bag.indices[0][kept].argsort()
    return FusedVector(cls[0].numpy(), bag.indices[0][kept][order].numpy(), bag.values[0][kept][order].numpy())


def _ot_error(wanted: FusedVector, found: FusedVector) -> float:
    _, mine, theirs = np.intersect1d(wanted.ot_indices, found.ot_indices, assume_unique=True, return_indices=True)
    return float(np.abs(wanted.ot_values[mine] - found.ot_values[theirs]).max(initial=0))


def _overlap(wanted: FusedVector, found: FusedVector) -> float:
    both = np.intersect1d(wanted.ot_indices, found.ot_indices, assume_unique=True)
    return both.size / max(wanted.ot_indices.size, found.ot_indices.size)
