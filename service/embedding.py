"""Vectors for those who keep an index of their own: whole lists of texts through the micro-batcher, in order.

They ask in the words of other servers (`routes/openai.py`, `routes/tei.py`); what the answers mean is settled here. The
model is that of the default index. A text that is too long is refused, not cut, unless the caller says so.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from model.artifact import Manifest
from model.encoder import Encoding
from service.batching import Encoded, Role
from service.desk import Desk
from service.metrics import Metrics
from service.problems import BadRequest, ModelNotFound
from service.serving import Serving
from service.settings import Settings

SHOWN = 80
"""Characters of a model's name that an error message repeats."""


def _listed(value: Any) -> Any:
    """A single text as a list of one; token ids are refused, since another tokenizer's would give wrong vectors.

    >>> _listed("a text")
    ['a text']
    """
    if isinstance(value, list) and any(isinstance(each, int | list) for each in value):
        raise ValueError(
            "token ids of another model's tokenizer would give wrong vectors; send text "
            "(LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
        )
    return [value] if isinstance(value, str) else value


Texts = Annotated[
    list[str],
    Field(min_length=1, description="A text, or a list of texts."),
    BeforeValidator(_listed, json_schema_input_type=str | list[str]),
]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller wants.

    Attributes:
        texts: At least one.
        field: Their name in the request.
        model: A name of the model, which says the role too; whatever is served when None.
        role: How the texts are encoded, where no model is named.
        truncate: Whether a text longer than the model's window may be cut.
        dimensions: Width of the vectors; the model's own when None.
    """

    texts: Sequence[str]
    field: str
    model: str | None = None
    role: Role = "document"
    truncate: bool = False
    dimensions: int | None = None


class Embedded(NamedTuple):
    """What became of the texts, and who encoded them in which role."""

    encodings: list[Encoding]
    role: Role
    manifest: Manifest

    def vectors(self, *, normalize: bool) -> list[NDArray[np.float32]]:
        """The [CLS] vectors as the graph gave them, or brought to length 1."""
        raw = [encoding.vector.cls for encoding in self.encodings]
        return [normalized(vector) for vector in raw] if normalize else raw

    @property
    def tokens_read(self) -> int:
        """Tokens of all texts that the model read, [CLS] and [SEP] not counted."""
        return sum(min(encoding.tokens, window(self.role, self.manifest)) for encoding in self.encodings)


class Embedder:
    """Encodes the texts of one app's callers."""

    def __init__(self, serving: Serving, settings: Settings, metrics: Metrics) -> None:
        self._serving = serving
        self._settings = settings
        self._metrics = metrics

    @asynccontextmanager
    async def desk(self) -> AsyncIterator[Desk]:
        """The default index, held for no longer than a request may take; errors as `Serving.desk`."""
        async with (
            asyncio.timeout(self._settings.timeout_ms / 1000),
            self._serving.desk(self._settings.index) as desk,
        ):
            yield desk

    async def embed(self, wanted: Wanted) -> Embedded:
        """The encodings of all texts, in order, or the first error of any of them.

        Raises:
            ModelNotFound: Another model is asked for than the one served.
            BadRequest: Too many texts, another width, a text without a word, or a text too long that may not be cut.
            TimeoutError: The deadline passed.
            IndexNotFound, NotReady: As `Serving.desk`.
            QueueFull, EncoderFailed, BatcherClosed: As `MicroBatcher.encode`.
        """
        deadline = asyncio.get_running_loop().time() + self._settings.timeout_ms / 1000
        async with self.desk() as desk:
            manifest = desk.searcher.encoder.artifact.manifest
            role = role_of(wanted.model, manifest) if wanted.model is not None else wanted.role
            self.check_count(wanted)
            _check_dimensions(wanted, manifest)
            encodings = await _encode_all(desk, wanted, role, deadline)
        self._metrics.embedded(role, len(encodings))
        return Embedded(encodings, role, manifest)

    def check_count(self, wanted: Wanted) -> None:
        """Refuse more texts than the settings allow with `BadRequest`."""
        most = self._settings.max_texts
        if len(wanted.texts) > most:
            raise BadRequest(wanted.field, f"{len(wanted.texts)} texts; at most {most} are taken: send smaller lists")


def roles(manifest: Manifest) -> Mapping[str, Role]:
    """The names the model goes by, and the role that each asks for."""
    return {manifest.name: "document", f"{manifest.name}:document": "document", f"{manifest.name}:query": "query"}


def role_of(name: str, manifest: Manifest) -> Role:
    """The role that a name of the model asks for; `ModelNotFound` when it is none of its names."""
    known = roles(manifest)
    if name not in known:
        shown = name if len(name) <= SHOWN else name[:SHOWN] + "…"
        raise ModelNotFound(f"no model {shown!r} is served here; ask for one of {', '.join(known)}")
    return known[name]


def window(role: Role, manifest: Manifest) -> int:
    """Tokens of a text that the model reads: its positions but for [CLS] and [SEP]."""
    return (manifest.max_query_tokens if role == "query" else manifest.max_document_tokens) - 2


def normalized(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """A vector at length 1; one of zeros stays.

    >>> normalized(np.float32([3, 4])).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    length = np.linalg.norm(vector)
    return vector / length if length else vector


async def _encode_all(desk: Desk, wanted: Wanted, role: Role, deadline: float) -> list[Encoding]:
    encodings = []
    for position, outcome in enumerate(await desk.batcher.encode_all(wanted.texts, role=role, deadline=deadline)):
        if not isinstance(outcome, Encoded):
            raise BadRequest(f"{wanted.field}.{position}", "no word in it that the model can weigh") from outcome
        encoding = outcome.encoding
        if encoding.truncated and not wanted.truncate:
            most = window(role, desk.searcher.encoder.artifact.manifest)
            reason = f"{encoding.tokens} tokens, and the model reads {most} of a {role}"
            raise BadRequest(f"{wanted.field}.{position}", f"{reason}; cut it, or set `truncate` to have it cut")
        encodings.append(encoding)
    return encodings


def _check_dimensions(wanted: Wanted, manifest: Manifest) -> None:
    if wanted.dimensions not in {None, manifest.dense_dim}:
        reason = f"{manifest.name} gives {manifest.dense_dim} and was not trained to be cut to {wanted.dimensions}"
        raise BadRequest("dimensions", f"{reason}; leave it out")
