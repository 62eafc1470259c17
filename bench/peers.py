"""Encoders that `encoder.py` measures: the artifact, what is left of it without the words, and others' ways."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from model.artifact import BUNDLED, GRAPH, Artifact
from model.encoder import Encoder
from model.session import Provider

Encode = Callable[[Sequence[str]], object]


class Place(NamedTuple):
    """Where systems run, with how many threads on a CPU, and how many padded tokens on a GPU at a time."""

    provider: Provider
    threads: int
    batch_tokens: int


class System(NamedTuple):
    """What is measured: a kind that `open_system` knows, its file or folder, and of two models the dense one's."""

    kind: str
    path: Path
    dense: Path | None = None


def open_system(system: System, place: Place) -> tuple[Encode, Encode]:
    """Functions that encode documents, and queries."""
    threads = place.threads
    if system.kind == "transformers":
        return open_transformers(system.path, place)
    if system.kind == "two models":
        assert system.dense is not None
        return open_two_models(system.dense, system.path, place)
    if system.kind == "dense":
        return open_dense(system.path, threads)
    if system.kind == "fastembed":
        return open_fastembed(system.path, threads)
    if system.kind == "infinity":
        return open_infinity(system.path, threads)
    encoder = Encoder(
        Artifact.open(system.path), provider=place.provider, threads=threads, max_batch_tokens=place.batch_tokens
    )
    if system.kind == "cls":
        encoder._session = Cut(system.path / GRAPH, place.provider)
    return encoder.encode_documents, encoder.encode_queries


class Cut:
    """A session of what leads to [CLS]; the bag of words is of one entry, the same for all."""

    def __init__(self, path: Path, provider: Provider) -> None:
        import onnx_ir as ir
        from onnx_ir.passes.common import RemoveUnusedNodesPass

        model = ir.load(path)
        del model.graph.outputs[1:]
        RemoveUnusedNodesPass()(model)
        self._session = session_of(ir.to_proto(model).SerializeToString(), provider)

    def run(self, _: Sequence[str], feed: dict[str, Any]) -> list[Any]:
        (cls,) = self._session.run(["cls"], feed)
        return [cls, *one_word(len(cls))]


class Pooled:
    """A session of a dense encoder, with the mean over its tokens."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._names = {node.name for node in session.get_inputs()}

    def run(self, _: Sequence[str], feed: dict[str, Any]) -> list[Any]:
        feed = feed | {"token_type_ids": np.zeros_like(feed["input_ids"])}
        hidden, *_ = self._session.run(None, {name: feed[name] for name in self._names})
        mask = feed["attention_mask"][..., None].astype(np.float32)
        return [(hidden * mask).sum(1) / mask.sum(1), *one_word(len(hidden))]


def session_of(model: Path | bytes, provider: Provider = "cpu") -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # a graph that was cut keeps what nothing needs any more, and each is told of
    return onnxruntime.InferenceSession(model, options, providers=[f"{provider.upper()}ExecutionProvider"])


def one_word(rows: int) -> tuple[Any, Any]:
    return np.zeros((rows, 1), np.int64), np.ones((rows, 1), np.float32)


def open_dense(path: Path, threads: int) -> tuple[Encode, Encode]:
    """Plain ONNX, batched as our own, without what our graph does beside the mean."""
    encoder = Encoder(Artifact.open(BUNDLED), threads=threads)
    encoder._session = Pooled(session_of(path))
    return encoder.encode_documents, encoder.encode_queries


def open_transformers(path: Path, place: Place) -> tuple[Encode, Encode]:
    """On a GPU in float16, and with batches as large as ours."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(place.threads)
    model = SentenceTransformer(str(path), device=place.provider)
    model.max_seq_length = 256
    if place.provider == "cpu":
        return model.encode, model.encode
    documents = partial(model.half().encode, batch_size=place.batch_tokens // model.max_seq_length)
    return documents, model.encode


def open_two_models(dense: Path, sparse: Path, place: Place) -> tuple[Encode, Encode]:
    """A dense vector and then a sparse one of each text, both in PyTorch."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling

    documents, _ = open_transformers(dense, place)
    words = SparseEncoder(modules=[MLMTransformer(str(sparse)), SpladePooling()], device=place.provider)
    words.max_seq_length = 256

    def encode(texts: Sequence[str]) -> object:
        return documents(texts), words.encode(texts)

    return encode, encode


def open_fastembed(folder: Path, threads: int) -> tuple[Encode, Encode]:
    """As its README has it; how many tokens it reads is what the folder's tokenizer says."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    facts = {"pooling": PoolingType.MEAN, "normalization": True, "sources": ModelSource(url=str(folder)), "dim": 384}
    TextEmbedding.add_custom_model("local", model_file="model.onnx", **facts)
    model = TextEmbedding("local", specific_model_path=str(folder), threads=threads)

    def encode(texts: Sequence[str]) -> object:
        return list(model.embed(texts))

    return encode, encode


def open_infinity(folder: Path, threads: int) -> tuple[Encode, Encode]:
    """Its engine without the HTTP around it, in PyTorch; it cuts texts at what the folder says of the model."""
    import asyncio

    import torch
    from infinity_emb import AsyncEmbeddingEngine, EngineArgs

    torch.set_num_threads(threads)
    arguments = EngineArgs(model_name_or_path=str(folder), engine="torch", device="cpu", model_warmup=False)
    engine, loop = AsyncEmbeddingEngine.from_args(arguments), asyncio.new_event_loop()
    loop.run_until_complete(engine.astart())

    def encode(texts: Sequence[str]) -> object:
        return loop.run_until_complete(engine.embed(sentences=list(texts)))

    return encode, encode
