"""What goes over the wire: the request and the answer of `POST /v1/search`. `dupmae search --json` prints the same."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from indexer.grouping import GroupBy
from indexer.store import INDEX_NAME, Mode

With = Literal["parts", "explain"]


class SearchRequest(BaseModel):
    """A question to one index."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"query": "compress a file", "limit": 5, "with": ["parts", "explain"]}]},
    )

    query: Annotated[str, Field(min_length=1, description="What to look for, in plain words.")]
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
    fingerprint: Annotated[
        str | None, Field(description="Artifact the answer must come from; another one served is a 409.")
    ] = None
    timeout_ms: Annotated[int | None, Field(ge=1, description="Give up after this; never later than the service.")] = (
        None
    )


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
    """The build that answered."""

    name: str
    build: str
    documents: int


class Meta(BaseModel):
    """How the answer came about; times in milliseconds by stage. An answer that is not `complete` may lack results."""

    took_ms: dict[str, float]
    mode: Mode
    complete: bool
    model: ModelOut
    index: IndexOut
    query: QueryOut


class SearchResponse(BaseModel):
    """Results, best first."""

    results: list[ResultOut]
    meta: Meta
