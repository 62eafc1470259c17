"""Networks that say how well a passage answers a query: what distillation learns from.

Three kinds of folder, all local, and no code of theirs is run. A cross-encoder reads both texts at once and is the
better judge; a bi-encoder reads each alone, so that a passage is encoded once for all queries that share it; a
checkpoint of ours is a bi-encoder with the fused score.
"""

import hashlib
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification

from model import checkpoint
from model.dupmae import Sparse
from model.lines import SourceError
from model.options import FinetuneOptions, TrainingError
from model.reader import Inputs, Limits, Reader, load_network, longest, read_json
from model.score import Pair, ScoreOptions, Teacher
from model.sentence_folder import MODULES, Layout, read_layout
from model.teaching import COSINE_SCALE
from model.vector import FusedVector

V = TypeVar("V")

MAX_TOKENS = 256
"""Longest passage unless told otherwise: more than students are usually given."""


def load_teacher(folder: Path, options: ScoreOptions, device: torch.device) -> Teacher:
    """Load a teacher of any kind.

    Args:
        folder: A cross-encoder (`...ForSequenceClassification` with one label), a bi-encoder in the layout of
            sentence-transformers, a bare transformer if the options name its pooling, or a checkpoint of ours.
        options: How to score.
        device: Where.

    Raises:
        SourceError: The folder is none of these, is damaged, or lacks something.
        ValueError: The options do not fit it.
    """
    judge = _judge(folder, options, device)
    scale = judge.scale if options.scale is None else options.scale
    query_prompt = judge.query_prompt if options.query_prompt is None else options.query_prompt
    document_prompt = judge.document_prompt if options.document_prompt is None else options.document_prompt

    def score(pairs: Sequence[Pair]) -> list[float]:
        found = judge.score([(query_prompt + query, document_prompt + passage) for query, passage in pairs])
        for pair, value in zip(pairs, found, strict=True):
            if not math.isfinite(value):
                raise TrainingError(f"{folder} scores {value} for {pair!r:.200}; try --device cpu, or another teacher")
        return [scale * value for value in found]

    return Teacher(f"{judge.what}, scores times {scale:g}", digest(folder), device.type, score)


class _Judge(NamedTuple):
    """A loaded folder: what it is, raw scores for pairs, and what it says about scale and prompts."""

    what: str
    score: Callable[[Sequence[Pair]], list[float]]
    scale: float = 1.0
    query_prompt: str = ""
    document_prompt: str = ""


def _judge(folder: Path, options: ScoreOptions, device: torch.device) -> _Judge:
    if (folder / checkpoint.FACTS).is_file():
        return _fused(folder, options, device)
    is_sentence_encoder = (folder / MODULES).is_file()
    if not is_sentence_encoder and not (folder / "config.json").is_file():
        raise SourceError(f"{folder}: no config.json and no {MODULES}; name the folder of a model")
    if _is_cross_encoder(folder / "config.json"):
        return _cross_encoder(folder, options, device)
    if is_sentence_encoder:
        return _bi_encoder(read_layout(folder, options), options, device)
    if options.pooling is None:
        raise SourceError(
            f"{folder} is neither a cross-encoder, nor in the layout of sentence-transformers, nor a checkpoint of "
            "ours; if it is a bi-encoder all the same, name its --pooling"
        )
    return _bi_encoder(Layout(folder, options.pooling, options.similarity or "cosine"), options, device)


def _is_cross_encoder(config: Path) -> bool:
    return any(name.endswith("ForSequenceClassification") for name in read_json(config).get("architectures") or ())


def _cross_encoder(folder: Path, options: ScoreOptions, device: torch.device) -> _Judge:
    network = load_network(AutoModelForSequenceClassification, folder).to(device)
    if network.config.num_labels != 1:
        raise SourceError(f"{folder} has {network.config.num_labels} labels; a cross-encoder that scores has one")
    reader = Reader.of(network, folder, device, options.precision)
    limits = _limits(folder, options, longest(network))
    if 2 * limits.query > limits.passage:
        raise ValueError(f"--max-query-tokens {limits.query} is more than half of a pair of {limits.passage}; lower it")

    def score(pairs: Sequence[Pair]) -> list[float]:
        return reader.rows(reader.pairs(pairs, limits), lambda inputs: network(**inputs).logits[:, 0].tolist())

    return _Judge("cross-encoder", score)


class BiEncoder(NamedTuple):
    """A loaded bi-encoder: `queries` and `passages` are encoded to vectors (D,) float32, whose product is the score."""

    layout: Layout
    queries: Callable[[list[str]], list[NDArray[np.float32]]]
    passages: Callable[[list[str]], list[NDArray[np.float32]]]


def load_bi_encoder(folder: Path, options: ScoreOptions, device: torch.device) -> BiEncoder:
    """Load a bi-encoder for its vectors, with its prompts.

    Raises:
        SourceError: The folder is not in the layout of sentence-transformers, is damaged, or lacks something.
        ValueError: The options do not fit it.
    """
    if not (folder / MODULES).is_file():
        raise SourceError(f"{folder} is not in the layout of sentence-transformers: no {MODULES}")
    layout = read_layout(folder, options)
    encoder = _encoder(layout, options, device)
    before = (
        layout.query_prompt if options.query_prompt is None else options.query_prompt,
        layout.document_prompt if options.document_prompt is None else options.document_prompt,
    )
    return BiEncoder(
        layout,
        lambda texts: encoder.queries([before[0] + text for text in texts]),
        lambda texts: encoder.passages([before[1] + text for text in texts]),
    )


def _encoder(layout: Layout, options: ScoreOptions, device: torch.device) -> BiEncoder:
    """Without prompts."""
    network = load_network(AutoModel, layout.body, unused="pooler.").to(device)
    reader = Reader.of(network, layout.body, device, options.precision)
    limits = _limits(layout.body, options, longest(network), layout.max_tokens)

    def forward(inputs: Inputs) -> Iterable[NDArray[np.float32]]:
        hidden = network(**inputs).last_hidden_state
        vectors: NDArray[np.float32] = layout.vectors(hidden, inputs["attention_mask"]).cpu().numpy()
        return vectors

    def encode(texts: list[str], most: int) -> list[NDArray[np.float32]]:
        lowered = [text.lower() for text in texts] if layout.lower else texts
        return reader.rows(reader.texts(lowered, most), forward)

    return BiEncoder(
        layout, lambda queries: encode(queries, limits.query), lambda passages: encode(passages, limits.passage)
    )


def _bi_encoder(layout: Layout, options: ScoreOptions, device: torch.device) -> _Judge:
    encoder = _encoder(layout, options, device)
    return _Judge(
        f"bi-encoder ({layout.pooling} pooling, {layout.similarity})",
        _each_once(encoder.queries, encoder.passages, lambda query, passage: float(query @ passage)),
        COSINE_SCALE if layout.similarity == "cosine" else 1.0,
        layout.query_prompt,
        layout.document_prompt,
    )


def _fused(folder: Path, options: ScoreOptions, device: torch.device) -> _Judge:
    loaded = checkpoint.load(folder)
    encoder, facts, usual = loaded.model.encoder.eval().to(device), loaded.facts, FinetuneOptions()
    reader = Reader(
        loaded.tokenizer.backend_tokenizer,
        device,
        pad_id=loaded.tokenizer.pad_token_id,
        types=False,
        precision=options.precision,
    )
    limits = _limits(folder, options, encoder.mlm.config.max_position_embeddings)

    def encode(texts: list[str], most: int, k: int) -> list[FusedVector]:
        kept = min(k, encoder.vocabulary_size)
        return reader.rows(
            reader.texts(texts, most),
            lambda inputs: _fused_vectors(*encoder(inputs["input_ids"], inputs["attention_mask"], kept)),
        )

    score = _each_once(
        lambda queries: encode(queries, limits.query, facts.k_query or usual.k_query),
        lambda passages: encode(passages, limits.passage, facts.k_document or usual.k_document),
        lambda query, passage: query.score(passage).score,
    )
    return _Judge("DupMAE checkpoint", score)


def _each_once(
    encode_queries: Callable[[list[str]], list[V]],
    encode_passages: Callable[[list[str]], list[V]],
    similarity: Callable[[V, V], float],
) -> Callable[[Sequence[Pair]], list[float]]:
    """Scores from vectors of both sides, each distinct text of which is encoded once."""

    def score(pairs: Sequence[Pair]) -> list[float]:
        queries, passages = (list(dict.fromkeys(side)) for side in zip(*pairs, strict=True))
        query_vectors = dict(zip(queries, encode_queries(queries), strict=True))
        passage_vectors = dict(zip(passages, encode_passages(passages), strict=True))
        return [similarity(query_vectors[query], passage_vectors[passage]) for query, passage in pairs]

    return score


def _fused_vectors(cls: Tensor, bag: Sparse) -> Iterable[FusedVector]:
    rows = zip(*(column.float().cpu().numpy() for column in (cls, bag.values)), bag.indices.cpu().numpy(), strict=True)
    for dense, values, indices in rows:
        ascending = indices.argsort()
        kept = ascending[values[ascending] > 0]
        yield FusedVector(dense, indices[kept], values[kept])


def _limits(folder: Path, options: ScoreOptions, *known: int | None) -> Limits:
    """Lengths within what the network, and what else is `known`, allow.

    Raises:
        ValueError: A longer one is asked for.
    """
    said = read_json(folder / "tokenizer_config.json").get("model_max_length")  # 10^30 where nobody thought of it
    most = min((int(limit) for limit in (said, *known) if limit), default=sys.maxsize)
    passage = options.max_tokens or min(MAX_TOKENS, most)
    wanted = {"--max-tokens": (passage, most), "--max-query-tokens": (options.max_query_tokens, passage)}
    for name, (tokens, limit) in wanted.items():
        if tokens > limit:
            raise ValueError(f"{name} {tokens}, but {folder} reads at most {limit}; lower it")
    return Limits(options.max_query_tokens, passage)


def digest(folder: Path) -> str:
    """SHA-256 over what makes a score: weights, configuration and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".json", ".safetensors", ".bin", ".txt", ".model"):
            with path.open("rb") as file:
                digest.update(
                    f"{path.relative_to(folder)} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()
                )
    return digest.hexdigest()
