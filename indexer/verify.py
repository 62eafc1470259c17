"""Whether a build is what it says: the checks that it must pass before it goes live.

Facts are compared with the engine, every stored vector with the contract, a sample of passages with what the encoder
makes of them now, and a sample of searches with brute force. The points are read once, in constant memory, for all of
it. A build that passes answers as its model and its texts say; whether that is any good is judged in `indexer.gate`.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
from pydantic import BaseModel

from indexer.checks import vector_problem
from indexer.chunking import Chunker, ChunkingError, Passage
from indexer.documents import Document
from indexer.exact import TOLERANCE, best_scores
from indexer.known_items import known_item_query, sample
from indexer.points import place
from indexer.store import Build, Chunking, Point, Store, StoreError, StoreUnavailable
from model.encoder import Encoder, EncodingError
from model.vector import FusedVector

LARGEST_DIFFERENCE = 1e-4
"""Between a stored vector and the same passage encoded again; a text alone and in a batch differ by 1e-5 at most."""

LEAST_OVERLAP = 0.99
"""Of the engine's top 10 with the exact ones, in the mean of the sampled searches: HNSW may miss one now and then."""

TOP = 10


class Check(BaseModel):
    """One thing that was looked at: what was found, what is allowed, and whether that is kept."""

    name: str
    value: str
    limit: str
    ok: bool


class Verification(BaseModel):
    """Every check of a build, in the order they were made; those that a failed one makes pointless are left out."""

    build: str
    index: str
    checks: list[Check]

    @property
    def ok(self) -> bool:
        """Whether all of them passed."""
        return not self.failed

    @property
    def failed(self) -> list[Check]:
        """Those that did not."""
        return [check for check in self.checks if not check.ok]


def verify(
    store: Store,
    build: Build,
    encoder: Encoder,
    *,
    samples: int = 32,
    watch: Callable[[int], None] = lambda points: None,
) -> Verification:
    """Check a build; nothing of it is changed.

    Args:
        store: The build, opened.
        build: The facts it is held against.
        encoder: The artifact that is kept for it.
        samples: Passages that are encoded again, and searches that are compared with brute force.
        watch: Told how many points were read so far.

    Raises:
        StoreUnavailable: The engine cannot be reached.
    """
    checks = [*_facts(store, build), *_model(build, encoder)]
    if all(check.ok for check in checks):
        points = list(islice(sample(store, seed=_seed(build)), samples))
        checks += [_encoded_again(points, encoder, build.chunking), *_searched(store, build, encoder, points, watch)]
    return Verification(build=build.id, index=build.index, checks=checks)


def _facts(store: Store, build: Build) -> Iterator[Check]:
    expected = build.passages or build.documents  # builds of before there were passages count documents alone
    count, condition = store.count(), store.condition()
    yield Check(name="points", value=f"{count:,}", limit=f"{expected:,}", ok=count == expected > 0)
    yield Check(name="search indexes", value=condition.detail, limit="nothing left to build", ok=condition.optimized)
    if condition.fields is not None:
        missing = sorted(build.indexed_fields.keys() - condition.fields)
        value = f"without {', '.join(missing)}" if missing else f"all {len(build.indexed_fields)}"
        yield Check(name="payload indexes", value=value, limit="every declared field", ok=not missing)


def _model(build: Build, encoder: Encoder) -> Iterator[Check]:
    found, expected = encoder.fingerprint, build.fingerprint
    yield Check(name="fingerprint", value=found[:12], limit=expected[:12], ok=found == expected)
    dims = encoder.artifact.manifest.dense_dim
    yield Check(name="dense size", value=str(dims), limit=str(build.dense_dim), ok=dims == build.dense_dim)


def _encoded_again(points: Sequence[Point], encoder: Encoder, chunking: Chunking | None) -> Check:
    limit = f"{LARGEST_DIFFERENCE:g} ({len(points)} passages)"
    try:
        chunker = Chunker(encoder, chunking)
        encodings = encoder.encode_documents([_text(chunker, point) for point in points])
    except (ChunkingError, EncodingError) as error:
        return Check(name="re-encoding", value=str(error), limit=limit, ok=False)
    k = encoder.artifact.manifest.k_document
    pairs = zip(points, encodings, strict=True)
    differences = {_document(point): difference(point.vector, encoding.vector, k) for point, encoding in pairs}
    worst = max(differences, key=lambda name: (np.isnan(differences[name]), differences[name]))
    value = f"{differences[worst]:.1e}"
    ok = differences[worst] <= LARGEST_DIFFERENCE
    return Check(name="re-encoding", value=value if ok else f"{value} in {worst}", limit=limit, ok=ok)


def _text(chunker: Chunker, point: Point) -> str:
    """What a stored passage was encoded from: a title that leaves no room loses its end again."""
    title, text = (str(point.payload.get(name) or "") for name in ("title", "text"))
    return chunker.passage_text(Document(point.id, title, text), Passage(place(point).number, 0, len(text)))


def difference(one: FusedVector, two: FusedVector, k: int) -> float:
    """The largest difference between two vectors of one text, over all entries of both sides.

    Of a text with more than `k` terms the last one kept hangs on the last bit. So an entry that only one vector has
    counts by what it exceeds the lowest of the other, if that is full.
    """
    if one.cls.shape != two.cls.shape:
        return np.inf
    largest = float(np.abs(one.cls - two.cls).max())
    bags = [dict(zip(each.ot_indices.tolist(), each.ot_values.tolist(), strict=True)) for each in (one, two)]
    floors = [min(bag.values()) if len(bag) >= k else 0.0 for bag in bags]
    for term in bags[0].keys() | bags[1].keys():
        left, right = (bag.get(term, floor) for bag, floor in zip(bags, floors, strict=True))
        largest = max(largest, abs(left - right))
    return largest


def _searched(
    store: Store, build: Build, encoder: Encoder, points: Sequence[Point], watch: Callable[[int], None]
) -> Iterator[Check]:
    """Search for the sampled passages, then read every point once: for its contract and for the exact answers."""
    queries = [build.weighed(query) for query in _queries(points, encoder)]
    try:
        found = [[hit.score for hit in store.search(query, limit=TOP)] for query in queries]
    except StoreUnavailable:
        raise
    except StoreError as error:
        found, refused = [], str(error)
    problems: list[str] = []
    vocabulary = encoder.artifact.manifest.vocabulary_size
    best = best_scores(_whole(store, build, vocabulary, problems, watch), queries if found else [], TOP)
    value = f"{len(problems):,} broken: {problems[0]}" if problems else "all whole"
    yield Check(name="vectors", value=value, limit="all whole", ok=not problems)
    limit = f"overlap@{TOP} {LEAST_OVERLAP} ({len(queries)} searches)"
    if queries and not found:
        yield Check(name="answers", value=refused, limit=limit, ok=False)
    elif queries:
        overlap = float(np.mean([_overlap(*pair) for pair in zip(found, best, strict=True)]))
        yield Check(name="answers", value=f"{overlap:.4f}", limit=limit, ok=overlap >= LEAST_OVERLAP)


def _queries(points: Sequence[Point], encoder: Encoder) -> list[FusedVector]:
    queries = []
    for text in filter(None, map(known_item_query, points)):
        try:
            queries += [encoding.vector for encoding in encoder.encode_queries([text])]
        except EncodingError:  # half a sentence may hold no word that the model knows
            continue
    return queries


def _whole(
    store: Store, build: Build, vocabulary: int, problems: list[str], watch: Callable[[int], None]
) -> Iterator[Point]:
    """Every point that keeps the contract; what the others have goes to `problems`."""
    for number, point in enumerate(store.scroll(), start=1):
        problem = vector_problem(point.vector, build.dense_dim)
        if problem is None and point.vector.ot_indices[-1] >= vocabulary:
            problem = f"OT index {point.vector.ot_indices[-1]} beyond a vocabulary of {vocabulary:,}"
        if problem is None:
            yield point
        else:
            problems.append(f"{_document(point)} has {problem}")
        if number % 1024 == 0:
            watch(number)
    watch(store.count())


def _overlap(scores: Sequence[float], best: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
    """Share of the exact best that were found, up to ties."""
    exact = best[np.isfinite(best)]
    return float((np.array(scores) >= exact[-1] - TOLERANCE).sum() / len(exact))


def _document(point: Point) -> str:
    return f"document {point.payload.get('doc_id', point.id)!r}"


def _seed(build: Build) -> int:
    """Another sample for every build, and the same one each time."""
    return int.from_bytes(build.id.encode())
