"""Text to fused vectors with ONNX Runtime and `tokenizers`, and nothing heavier.

Everything from token ids to the kept terms is inside the graph; what is left for this module is to cut, batch and
order. Texts are sorted by length and batched by padded tokens, so that memory has a bound whatever the texts are. A
text's vectors do not depend on its batch (1e-5), in every precision.

On a CPU batches are small and each has one thread: what a layer hands to the next then stays in that core's cache, and
no thread waits for another at each of some 300 nodes. On two cores that was 1.7 times as fast as batches of 2,048
tokens on both (docs/benchmarks.md). The cost: one long text alone takes the time that one core needs.
"""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding as Tokens
from tokenizers import Tokenizer

from model.artifact import TOKENIZER, Artifact, ArtifactError, Precision
from model.session import OUTPUTS, Provider, load_session
from model.vector import FusedVector

CACHED_TOKENS = 512
"""Padded tokens of a batch on a CPU: at most 3 MB between two layers of 384 dimensions, about what a core caches."""

LEAST_TOKENS = 64
"""Texts are not spread over threads in batches smaller than this: each batch reads all the weights."""


class EncodingError(ValueError):
    """Texts that have no vector; the message says which and why.

    Attributes:
        reason: Why, for any of them.
        positions: Where they stand in the given sequence.
    """

    def __init__(self, reason: str, positions: tuple[int, ...]) -> None:
        super().__init__(f"{reason} (text {', '.join(map(str, positions))}, counted from 0)")
        self.reason = reason
        self.positions = positions


class NoWords(EncodingError):
    """Texts without a word that the model gives any weight."""


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A text as the graph is given it.

    Attributes:
        ids: Cut to the model's window, with [CLS] and [SEP].
        tokens: As in `Encoding`.
        truncated: As in `Encoding`.
        k: OT entries kept, at most.
        unknown: As in `Encoding`.
    """

    ids: list[int]
    tokens: int
    truncated: bool
    k: int
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Encoding:
    """One encoded text.

    Attributes:
        vector: What is stored or searched with.
        tokens: The text's length in tokens before it was cut, a prompt counted and [CLS] and [SEP] not.
        truncated: Whether the model saw less than the whole text.
        unknown: Tokens that stand for what the vocabulary has no piece of, such as another script.
    """

    vector: FusedVector
    tokens: int
    truncated: bool
    unknown: int = 0


class Token(NamedTuple):
    """One token of a text.

    Attributes:
        id: In the vocabulary.
        text: The characters it stands for; the name of a special one.
        span: Where they begin and end in the text; None for a special one.
    """

    id: int
    text: str
    span: tuple[int, int] | None


class _Raw(NamedTuple):
    """A batch as the graph returns it: `cls` (B, d'), `indices` (B, k), `values` (B, k)."""

    cls: NDArray[np.float32]
    indices: NDArray[np.int64]
    values: NDArray[np.float32]


class Encoder:
    """An artifact, ready to encode. Thread-safe: nothing changes after construction.

    Attributes:
        artifact: What it was made from.
    """

    def __init__(
        self,
        artifact: Artifact,
        *,
        provider: Provider = "cpu",
        threads: int = 0,
        arena: bool = True,
        max_batch_tokens: int = 2048,
    ) -> None:
        """Load graph and tokenizer and check that they are what the manifest says.

        Args:
            artifact: An opened artifact.
            provider: Where to run; never changed silently.
            threads: That encode at the same time; 0 takes every core this process may use.
            arena: Use ONNX Runtime's memory arena (CPU); without it each call allocates anew.
            max_batch_tokens: Padded tokens per call of the graph, on a CPU never above `CACHED_TOKENS`. A single longer
                text still goes alone.

        Raises:
            ArtifactError: The graph or the tokenizer does not fit the manifest.
            ProviderError: No ONNX Runtime, or not with this provider.
        """
        self.artifact = artifact
        on_cpu = provider == "cpu"
        self._threads = (threads or _cores()) if on_cpu else 1
        self._max_batch_tokens = min(max_batch_tokens, CACHED_TOKENS) if on_cpu else max_batch_tokens
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="encode-batch")  # ends with the encoder
        self._tokenizer = _load_tokenizer(artifact)
        self._session = load_session(artifact, provider, arena=arena)

    @property
    def fingerprint(self) -> str:
        """The artifact's: what an index must carry for this encoder to search it."""
        return self.artifact.fingerprint

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """WordPiece strings by id: `vocabulary[i]` is what OT index `i` stands for."""
        by_id = {i: entry for entry, i in self._tokenizer.get_vocab(with_added_tokens=True).items()}
        return tuple(by_id[i] for i in range(self.artifact.manifest.vocabulary_size))

    def encode_queries(self, texts: Sequence[str], *, k: int | None = None) -> list[Encoding]:
        """Encode queries, in the order given.

        Args:
            texts: Any text; the prompt of the manifest is put before it.
            k: OT entries kept per text, at most; the manifest's `k_query` unless given.

        Raises:
            NoWords: Some texts hold no word the model knows.
            EncodingError: The model gave some texts no finite vector.
            ValueError: `k` is outside 1 to V.
        """
        return self.encode_tokenized(self._tokenize_queries(texts, k))

    def encode_documents(self, texts: Sequence[str], *, k: int | None = None) -> list[Encoding]:
        """Encode documents: `encode_queries` with the prompt, length and `k` of documents."""
        return self.encode_tokenized(self._tokenize_documents(texts, k))

    def tokenize_query(self, text: str) -> Tokenized:
        """What `encode_queries` makes of a text before the graph runs: about a microsecond a character."""
        [tokenized] = self._tokenize_queries([text], None)
        return tokenized

    def tokenize_document(self, text: str) -> Tokenized:
        """What `encode_documents` makes of a text before the graph runs."""
        [tokenized] = self._tokenize_documents([text], None)
        return tokenized

    def encode_tokenized(self, texts: Sequence[Tokenized]) -> list[Encoding]:
        """Encode texts of either role, each with its own `k`, in the order given; errors as `encode_queries`."""
        vectors: dict[int, FusedVector] = {}
        work = self._batches(texts)
        run = self._pool.map if len(work) > 1 and self._threads > 1 else map
        for batch, raw in zip(work, run(lambda batch: self._run(texts, batch), work), strict=True):
            _check_finite(raw, batch, self.artifact.manifest.precision)
            vectors |= {position: _vector(raw, row) for row, position in enumerate(batch)}
        _check_not_empty(vectors)
        return [
            Encoding(vectors[position], text.tokens, text.truncated, text.unknown)
            for position, text in enumerate(texts)
        ]

    def token_ids(self, text: str) -> list[int]:
        """The ordinary tokens of a text in order: untruncated, special tokens left out."""
        return [i for i in self._tokenizer.encode(text, add_special_tokens=False).ids if i not in self.special_ids]

    def tokens(self, texts: Sequence[str], *, special: bool) -> list[list[Token]]:
        """The tokens of each text in order, untruncated, with or without the special ones around it."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=special)
        return [_tokens(text, encoding) for text, encoding in zip(texts, found, strict=True)]

    def token_spans(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Where the tokens of each text stand in it, untruncated: (tokens, 2), begin and end in characters."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [np.array(text.offsets, np.int32).reshape(-1, 2) for text in found]

    @cached_property
    def document_room(self) -> int:
        """Tokens of a document that the model reads: its window without the prompt and the special tokens."""
        (prompt,) = self.token_spans([self.artifact.manifest.document_prompt])
        return self.artifact.manifest.max_document_tokens - self._added - len(prompt)

    def input_ids(self, text: str, max_tokens: int) -> list[int]:
        """What the graph is given for a text, without its prompt: cut to `max_tokens`, with [CLS] and [SEP]."""
        [ids] = self._input_ids(self._tokens([text]), max_tokens)
        return ids

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Of tokens that are no word, such as [CLS] and [UNK]."""
        return frozenset(i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special)

    def _tokenize_queries(self, texts: Sequence[str], k: int | None) -> list[Tokenized]:
        manifest = self.artifact.manifest
        prompted = [manifest.query_prompt + text for text in texts]
        return self._tokenize(prompted, manifest.k_query if k is None else k, manifest.max_query_tokens)

    def _tokenize_documents(self, texts: Sequence[str], k: int | None) -> list[Tokenized]:
        manifest = self.artifact.manifest
        prompted = [manifest.document_prompt + text for text in texts]
        return self._tokenize(prompted, manifest.k_document if k is None else k, manifest.max_document_tokens)

    def _tokenize(self, texts: list[str], k: int, max_tokens: int) -> list[Tokenized]:
        if not 1 <= k <= self.artifact.manifest.vocabulary_size:
            raise ValueError(f"k is {k}; it must be between 1 and {self.artifact.manifest.vocabulary_size}")
        tokens = self._tokens(texts)
        lengths = [len(text) for text in tokens]
        unknown = [text.ids.count(self._unknown_id) for text in tokens]
        room = max_tokens - self._added
        ids = self._input_ids(tokens, max_tokens)
        return [
            Tokenized(row, length, length > room, k, missing)
            for row, length, missing in zip(ids, lengths, unknown, strict=True)
        ]

    def _tokens(self, texts: list[str]) -> list[Tokens]:
        """One text keeps Python's lock: the event loop, which has a query tokenized, would get it back last of all."""
        if len(texts) == 1:
            return [self._tokenizer.encode(texts[0], add_special_tokens=False)]
        return self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)

    def _input_ids(self, tokens: list[Tokens], max_tokens: int) -> list[list[int]]:
        for text in tokens:
            text.truncate(max_tokens - self._added)
        return [self._tokenizer.post_process(text).ids for text in tokens]  # [CLS] .. [SEP]

    @cached_property
    def _unknown_id(self) -> int:
        """Of the token for what the vocabulary lacks; -1, which no token has, where the tokenizer has none."""
        found = self._tokenizer.token_to_id(getattr(self._tokenizer.model, "unk_token", None) or "")
        return -1 if found is None else found

    @cached_property
    def _added(self) -> int:
        """Special tokens around a text."""
        return self._tokenizer.num_special_tokens_to_add(is_pair=False)

    def _batches(self, texts: Sequence[Tokenized]) -> list[list[int]]:
        """Positions of texts of one `k` and similar length, in batches enough for all threads; the longest first."""
        share = math.ceil(sum(len(text.ids) for text in texts) / self._threads)
        most = min(self._max_batch_tokens, max(share, LEAST_TOKENS))
        work = []
        for k in sorted({text.k for text in texts}):
            positions = [position for position, text in enumerate(texts) if text.k == k]
            for rows in batches([len(texts[position].ids) for position in positions], most):
                work.append([positions[row] for row in rows])
        return sorted(work, key=lambda batch: -len(texts[batch[-1]].ids))

    def _run(self, texts: Sequence[Tokenized], batch: Sequence[int]) -> _Raw:
        rows = [texts[position].ids for position in batch]
        longest = max(map(len, rows))
        input_ids = np.zeros((len(rows), longest), np.int64)  # padding ids do not matter: the mask is 0 there
        attention_mask = np.zeros_like(input_ids)
        for row, ids in enumerate(rows):
            input_ids[row, : len(ids)] = ids
            attention_mask[row, : len(ids)] = 1
        k = np.array(texts[batch[0]].k, np.int64)
        feed = {"input_ids": input_ids, "attention_mask": attention_mask, "k": k}
        return _Raw(*self._session.run(list(OUTPUTS), feed))


def batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Positions of texts, grouped by similar length so that `rows * longest` stays within `max_tokens`.

    >>> list(batches([3, 9, 3, 2], max_tokens=9))
    [[3, 0, 2], [1]]
    """
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[position] > max_tokens:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


def _vector(raw: _Raw, row: int) -> FusedVector:
    """One row without its padding, in ascending order of index."""
    kept = np.flatnonzero(raw.values[row] > 0)
    kept = kept[raw.indices[row, kept].argsort()]
    return FusedVector(raw.cls[row].copy(), raw.indices[row, kept], raw.values[row, kept])


def _tokens(text: str, encoding: Tokens) -> list[Token]:
    columns = zip(encoding.ids, encoding.tokens, encoding.offsets, encoding.special_tokens_mask, strict=True)
    return [
        Token(id, token, None) if special else Token(id, text[begin:end], (begin, end))
        for id, token, (begin, end), special in columns
    ]


def _check_finite(raw: _Raw, batch: list[int], precision: Precision) -> None:
    finite = np.isfinite(raw.cls).all(axis=1) & np.isfinite(raw.values).all(axis=1)
    if not finite.all():
        positions = tuple(sorted(batch[row] for row in np.flatnonzero(~finite)))
        remedy = "or is too wide for float16: try `--precision fp32`" if precision == "fp16" else "use another artifact"
        raise EncodingError(f"the model gave NaN or infinity; its training went wrong, {remedy}", positions)


def _check_not_empty(vectors: dict[int, FusedVector]) -> None:
    empty = tuple(sorted(position for position, vector in vectors.items() if not vector.ot_indices.size))
    if empty:
        raise NoWords("no word in it, or none that the model gives any weight; say more", empty)


def _load_tokenizer(artifact: Artifact) -> Tokenizer:
    file = artifact.path / TOKENIZER
    tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    found = tokenizer.get_vocab_size(with_added_tokens=True)
    if found != artifact.manifest.vocabulary_size:
        raise ArtifactError(
            f"{file} has {found} entries, the manifest says {artifact.manifest.vocabulary_size}; export it anew"
        )
    return tokenizer


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
