"""What goes over the wire: searches, documents and errors. `dupmae search --json` prints the same answer."""

import json
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from indexer.checks import MAX_DEPTH, is_too_deep
from indexer.grouping import GroupBy
from indexer.store import INDEX_NAME, FieldType, Mode

PROBLEM_TYPE = "application/problem+json"
"""The media type of every error."""

With = Literal["parts", "explain"]


class SearchOptions(BaseModel):
    """Which results of one index are wanted, and how."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"limit": 5, "with": ["parts"]}]}
    )

    index: Annotated[
        str | None,
        Field(pattern=f"^{INDEX_NAME.pattern}$", description="Index to search; the service's default when absent."),
    ] = None
    limit: Annotated[int, Field(ge=1, description="Results wanted.")] = 10
    mode: Annotated[
        Mode,
        Field(
            description="`fused`: the exact sum of both parts; `cls`, `ot`: one part; `rrf`: reciprocal rank fusion."
        ),
    ] = "fused"
    with_: Annotated[
        list[With], Field(alias="with", description="What to return with each result besides its text.")
    ] = ["parts"]
    filter: Annotated[
        dict[str, JsonValue] | None,
        Field(description="Qdrant's filter grammar over `doc_id`, `parent_id` and the fields declared at indexing."),
    ] = None
    group_by: Annotated[
        GroupBy,
        Field(description="`document`: each document once, by its best passage; `passage`: every passage by itself."),
    ] = "document"
    min_score: Annotated[
        float | None,
        Field(allow_inf_nan=False, description="Leave out what scores less; not with `rrf`, whose scores are ranks."),
    ] = None
    cursor: Annotated[
        str | None,
        Field(max_length=1_024, description="`next_cursor` of the page before; all that decides the order as there."),
    ] = None
    depth: Annotated[
        int | None,
        Field(ge=10, description="Candidates that each side brings, and how far pages reach; the service's if absent."),
    ] = None
    facets: Annotated[
        list[str],
        Field(max_length=8, description="Declared fields whose values to count over all documents under the filter."),
    ] = []
    facet_limit: Annotated[int, Field(ge=1, le=1_000, description="Values of each, those of most documents first.")] = (
        10
    )
    fingerprint: Annotated[
        str | None, Field(description="Artifact the answer must come from; another one served is a 409.")
    ] = None
    timeout_ms: Annotated[int | None, Field(ge=1, description="Give up after this; never later than the service.")] = (
        None
    )


class SearchRequest(SearchOptions):
    """A question to one index."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "compress a file", "limit": 5, "with": ["parts", "explain"]}]}
    )

    query: Annotated[str, Field(min_length=1, description="What to look for, in plain words.")]


class PartsOut(BaseModel):
    """The addends of a score."""

    cls: float
    ot: float


class RunOut(BaseModel):
    """A stretch of a snippet, either a match or not."""

    text: str
    match: bool


class TermOut(BaseModel):
    """What one vocabulary entry adds to the OT inner product of query and document."""

    entry: str
    word: str
    query_weight: float
    document_weight: float
    contribution: float
    in_query: bool
    in_document: bool


class PassageOut(BaseModel):
    """Which stretch of its document a result shows: `number` (from 1) `of` them, and its characters in the text."""

    number: int
    of: int
    start: int
    end: int


class ResultOut(BaseModel):
    """One document that was found, by its best passage; `text` is the passage. `parts.cls + parts.ot` is `score`."""

    id: str
    score: float
    parts: PartsOut | None = None
    title: str
    text: str
    passage: PassageOut
    url: str
    metadata: dict[str, JsonValue]
    highlights: list[RunOut]
    explain: list[TermOut] | None = None


class QueryOut(BaseModel):
    """What the encoder made of the query: its length in tokens, and whether it was cut to the model's window."""

    tokens: int
    truncated: bool


class ModelOut(BaseModel):
    """The artifact that encoded query and documents."""

    name: str
    fingerprint: str


class IndexOut(BaseModel):
    """The build that answered; `documents` is not said to a key that sees those of one tenant only."""

    name: str
    build: str
    documents: int | None = None


class Meta(BaseModel):
    """How the answer came about; times in milliseconds by stage. An answer that is not `complete` may lack results."""

    took_ms: dict[str, float]
    mode: Mode
    complete: bool
    model: ModelOut
    index: IndexOut
    query: QueryOut


class FacetOut(BaseModel):
    """A value of a field, and how many documents under the filter hold it."""

    value: str | int | bool
    count: int


class SearchResponse(BaseModel):
    """Results, best first, and what brings those that follow; absent where nothing does."""

    results: list[ResultOut]
    next_cursor: str | None = None
    facets: dict[str, list[FacetOut]] | None = None
    meta: Meta


class FieldError(BaseModel):
    """What is wrong with one field of a request."""

    field: str
    message: str


class Problem(BaseModel):
    """The body of every error."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldError] | None = None


class DocumentIn(BaseModel):
    """A document to store. Title and text are searched; one of them must say something."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"title": "Gulls", "text": "They nest on cliffs.", "metadata": {"lang": "en"}}]
        },
    )

    title: str = ""
    text: str = ""
    url: str = ""
    metadata: dict[str, JsonValue] = {}

    @model_validator(mode="after")
    def _storable(self) -> Self:
        if not (self.title.strip() or self.text.strip()):
            raise ValueError("title and text are both empty")
        if is_too_deep(self.metadata):
            raise ValueError(f"metadata is nested more than {MAX_DEPTH} deep")
        content = json.dumps(self.model_dump(), ensure_ascii=False, allow_nan=False)
        content.encode()  # half of a surrogate pair, which JSON can hold and no encoder takes, is a ValueError
        json.loads(content, parse_int=_int64)
        return self


class DocumentOut(BaseModel):
    """A stored document, and the build that holds it."""

    id: str
    title: str
    text: str
    url: str
    metadata: dict[str, JsonValue]
    index: str
    build: str


class WrittenOut(BaseModel):
    """A write that is kept and can be searched: the build it is in, and its position in the journal.

    The position counts everybody's writes, so a key that sees those of one tenant only is not told.
    """

    id: str
    index: str
    build: str
    journal: int | None = None


class AnswerOut(BaseModel):
    """What became of one search: `answer` if `status` is 200, else `problem`."""

    status: int
    answer: SearchResponse | None = None
    problem: Problem | None = None


class BatchResponse(BaseModel):
    """One for each search, in their order."""

    answers: list[AnswerOut]


class PublishedIndexOut(BaseModel):
    """An index, and the build that it answers from; a key of one tenant is not told how many `documents` it has."""

    name: str
    build: str
    fingerprint: str
    documents: int | None = None
    fields: Annotated[dict[str, FieldType], Field(description="What a filter may name, and its type.")]


class IndexesOut(BaseModel):
    """Every index that has a published build, by name."""

    indexes: list[PublishedIndexOut]


def _int64(literal: str) -> int:
    value = int(literal)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{literal[:30]} does not fit into 64 bits")
    return value
