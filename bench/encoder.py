"""Documents, tokens and queries per second of encoding, against the same body without the words, and against others.

    python bench/encoder.py CORPUS.jsonl --json encoder.json
    python bench/encoder.py CORPUS.jsonl --before OLD_ARTIFACT --dense model.onnx --transformers all-MiniLM-L6-v2/

Every system has a process of its own, which is warm before it is asked, and the systems take turns in random order:
ratios are medians over the rounds, for queries over turns of eight. `CLS only` is the same artifact, of whose graph
nothing runs but what leads to the dense vector; `--dense` is a BERT in ONNX that takes `input_ids`, `attention_mask`
and `token_type_ids`, mean pooled; `--transformers` a folder for sentence-transformers, in PyTorch; `--splade` one of
its sparse encoders, run after the dense one, which is the way of two models to both vectors; `--fastembed` one with
`model.onnx` and a tokenizer, as fastembed reads it; `--infinity` one for sentence-transformers, which wants an
environment of its own (numpy 1). The ceiling is what ONNX Runtime reaches here with the products of a layer and of the
LPU alone, a CPU second; operations are those of all products, of useful rows only. On a busy machine trust what is said
per CPU second: a neighbour costs less of it.

On a GPU, artifacts (fp16 or fp32) and PyTorch (float16) only: `--provider cuda --artifact FP16 --documents 4000`.
"""

import argparse
import json
import os
import re
import statistics
import time
from collections.abc import Sequence
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from peers import Place, System, open_system, session_of

from model.artifact import BUNDLED, GRAPH, Artifact
from model.encoder import Encoder

WORDS = 9

TURN = 8
"""Queries that a system is asked before the next one's turn: this machine's clock and caches come and go in seconds."""


class Work(NamedTuple):
    """Texts, and what they take: tokens of the documents, and operations of these by system."""

    documents: list[str]
    queries: list[str]
    tokens: int
    operations: dict[str, float]


class Rounds(NamedTuple):
    """What a system took: seconds and CPU seconds of the documents, milliseconds of each query, turn by turn; and its
    peak memory."""

    seconds: list[float]
    cpu: list[float]
    ms: list[list[float]]
    peak_mb: float


def serve(pipe: Connection, system: System, place: Place, work: Work) -> None:
    """Answers "documents" with seconds and those of CPU time, "memory" with MB, and where a turn of queries begins with
    milliseconds of each."""
    documents, queries = open_system(system, place)
    documents(work.documents[:8])
    queries(work.queries[:1])
    pipe.send("ready")
    while (asked := pipe.recv()) is not None:
        if asked == "documents":
            began, cpu = time.perf_counter(), time.process_time()
            documents(work.documents)
            pipe.send((time.perf_counter() - began, time.process_time() - cpu))
        elif isinstance(asked, int):
            times = []
            for query in work.queries[asked : asked + TURN]:
                began = time.perf_counter()
                queries([query])
                times.append(1000 * (time.perf_counter() - began))
            pipe.send(times)
        else:
            status = Path("/proc/self/status").read_text()
            pipe.send(int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024)


def read_work(corpus: Path, artifact: Artifact, before: Artifact | None, count: int) -> Work:
    with corpus.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in islice(lines, count)]
    documents = [f"{record.get('title', '')}\n{record['text']}".strip() for record in records]
    queries = [" ".join(text.split()[:WORDS]) for text in documents]
    encoder = Encoder(artifact, threads=1)
    lengths = np.array([len(encoder.tokenize_document(text).ids) for text in documents])
    fused, dense = operations(artifact, lengths)
    old = operations(before, lengths)[0] if before else 0.0
    return Work(documents, queries, int(lengths.sum()), {"fused": fused, "CLS only": dense, "before": old})


def operations(artifact: Artifact, lengths: NDArray[np.int64]) -> tuple[float, float]:
    """Of all products with the words and without; with an expansion vocabulary, a text's own others not counted."""
    import onnx_ir as ir

    from model.graph import EXPANSIONS

    arrays = {value.name: value.shape for value in ir.load(artifact.path / GRAPH).graph.initializers.values()}
    layers = sum(bool(re.search(r"layer\.\d+\.output\.dense\.weight$", str(name))) for name in arrays)
    V, d = next(shape.numpy() for name, shape in arrays.items() if str(name).endswith("word_embeddings.weight"))
    words = arrays[EXPANSIONS].numpy()[0] if EXPANSIONS in arrays else V
    dense = float((lengths * layers * 24 * d * d).sum() + (lengths**2 * layers * 4 * d).sum())
    return dense + float(((lengths - 2) * (2 * d * words + 2 * d * d)).sum()), dense


def ceiling(rows: int, inner: int, outer: int, *, quantized: bool) -> float:
    """Operations per CPU second of one product."""
    import onnx_ir as ir

    from model.writer import Writer

    writer, random = Writer(), np.random.default_rng(0)
    kind = ir.DataType.UINT8 if quantized else ir.DataType.FLOAT
    x = ir.Value(name="x", type=ir.TensorType(kind), shape=ir.Shape([rows, inner]))
    if quantized:
        weight = random.integers(-64, 65, (inner, outer)).astype(np.int8)
        y = writer.op("MatMulInteger", x, writer.constant(weight, "weight"), writer.constant(np.uint8(128)))
        y.type = ir.TensorType(ir.DataType.INT32)
    else:
        y = writer.op("MatMul", x, writer.constant(random.normal(size=(inner, outer)).astype(np.float32), "weight"))
        y.type = ir.TensorType(ir.DataType.FLOAT)
    y.name, y.shape = "y", ir.Shape([rows, outer])
    session = session_of(ir.to_proto(writer.model([x], [y])).SerializeToString())
    feed = {"x": random.integers(0, 255, (rows, inner)).astype(np.uint8 if quantized else np.float32)}
    times, best = max(4, int(1e10 / (2 * rows * inner * outer))), 0.0
    for _ in range(5):
        began = time.process_time()
        for _ in range(times):
            session.run(None, feed)
        best = max(best, 2.0 * rows * inner * outer * times / (time.process_time() - began))
    return best


def measure(systems: dict[str, System], place: Place, work: Work, rounds: int) -> dict[str, Rounds]:
    """Of each system: seconds of each round, milliseconds of each query by turns, peak memory."""
    context, pipes = get_context("spawn"), {}
    for name, system in systems.items():
        pipes[name], theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, system, place, work), daemon=True).start()
    found: dict[str, Rounds] = {name: Rounds([], [], [], 0.0) for name in systems}
    for pipe in pipes.values():
        assert pipe.recv() == "ready"
    random = np.random.default_rng()
    for _ in range(rounds):
        for name in random.permutation(list(systems)):
            pipes[name].send("documents")
            seconds, cpu = pipes[name].recv()
            found[name].seconds.append(seconds)
            found[name].cpu.append(cpu)
        for turn in range(0, len(work.queries), TURN):
            for name in random.permutation(list(systems)):
                pipes[name].send(turn)
                found[name].ms.append(pipes[name].recv())
    for name, pipe in pipes.items():
        pipe.send("memory")
        found[name] = found[name]._replace(peak_mb=pipe.recv())
        pipe.send(None)
    return found


def summary(found: dict[str, Rounds], work: Work) -> dict[str, dict[str, float]]:
    base, count, dense = found["fused"], len(work.documents), work.operations["CLS only"]
    return {
        name: {
            "documents/s": count / statistics.median(one.seconds),
            "documents/s lowest": count / max(one.seconds),
            "documents/s highest": count / min(one.seconds),
            "tokens/s": work.tokens / statistics.median(one.seconds),
            "time of documents, fused = 1": median_ratio(one.seconds, base.seconds),
            "documents per CPU second": count / statistics.median(one.cpu),
            "CPU time of documents, fused = 1": median_ratio(one.cpu, base.cpu),
            "query p50 ms": float(np.quantile(np.concatenate(one.ms), 0.5)),
            "query p99 ms": float(np.quantile(np.concatenate(one.ms), 0.99)),
            "time of a query, fused = 1": median_ratio(
                [statistics.median(ms) for ms in one.ms], [statistics.median(ms) for ms in base.ms]
            ),
            "Gop per CPU second": work.operations.get(name, dense) / statistics.median(one.cpu) / 1e9,
            "peak MB": one.peak_mb,
        }
        for name, one in found.items()
    }


def median_ratio(mine: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(mine, theirs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="JSON lines with title and text")
    parser.add_argument("--documents", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--provider", choices=("cpu", "cuda"), default="cpu", help="where artifacts, and --transformers, run"
    )
    parser.add_argument("--batch-tokens", type=int, default=32768, help="padded tokens that a GPU has at a time")
    parser.add_argument("--artifact", type=Path, default=BUNDLED)
    parser.add_argument("--before", type=Path, help="another artifact to compare with")
    parser.add_argument("--dense", type=Path, help="a dense encoder in ONNX")
    parser.add_argument("--transformers", type=Path, help="a folder for sentence-transformers")
    parser.add_argument("--splade", type=Path, help="a folder for its sparse encoder, after --transformers")
    parser.add_argument("--fastembed", type=Path, help="a folder for fastembed")
    parser.add_argument("--infinity", type=Path, help="a folder for infinity")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.splade and not given.transformers:
        parser.error("--splade is measured after a dense encoder: give --transformers too")
    if given.provider == "cuda" and (given.dense or given.fastembed or given.infinity):
        parser.error("--dense, --fastembed and --infinity are measured on a CPU: leave them out with --provider cuda")
    asked = {
        "fused": System("fused", given.artifact),
        "CLS only": System("cls", given.artifact),
        "before": System("fused", given.before),
        "dense ONNX": System("dense", given.dense),
        "sentence-transformers": System("transformers", given.transformers),
        "and SPLADE after it": System("two models", given.splade, given.transformers),
        "fastembed": System("fastembed", given.fastembed),
        "infinity": System("infinity", given.infinity),
    }
    systems = {name: system for name, system in asked.items() if system.path}
    before = Artifact.open(given.before) if given.before else None
    work = read_work(given.corpus, Artifact.open(given.artifact), before, given.documents)
    limits = {
        f"{what} {'int8' if quantized else 'fp32'}": ceiling(*shape, quantized=quantized) / 1e9
        for what, shape in {"layer": (512, 384, 1536), "LPU": (254, 384, 30522)}.items()
        for quantized in (True, False)
        if given.provider == "cpu"
    }
    place = Place(given.provider, given.threads, given.batch_tokens)
    found = summary(measure(systems, place, work, given.rounds), work)
    machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    length = work.tokens / len(work.documents)
    print(f"{len(work.documents)} documents of {length:.0f} tokens, {given.rounds} rounds, {machine}")
    if limits:
        print("ceiling, Gop per CPU second: " + ", ".join(f"{name} {value:.0f}" for name, value in limits.items()))
    print_table(found)
    if given.json:
        record = {"machine": machine, "threads": given.threads, "ceiling, Gop per CPU second": limits, "systems": found}
        given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


COLUMNS = ("docs/s", "from", "to", "tok/s", "time", "/cpu s", "time", "p50 ms", "p99 ms", "time", "Gop/s", "MB")
DECIMALS = (1, 1, 1, 0, 2, 1, 2, 2, 2, 2, 0, 0)


def print_table(found: dict[str, dict[str, float]]) -> None:
    """Each `time` is a multiple of fused: of documents, of their CPU time, and of a query."""
    print(f"{'':22s}" + "".join(f"{column:>8s}" for column in COLUMNS))
    for name, row in found.items():
        cells = zip(row.values(), DECIMALS, strict=True)
        print(f"{name:22s}" + "".join(f"{value:8.{decimals}f}" for value, decimals in cells))


if __name__ == "__main__":
    main()
