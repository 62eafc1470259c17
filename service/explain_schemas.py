"""What goes over the wire of explanations and encodings. `dupmae explain --json` prints the same answer."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from indexer.store import INDEX_NAME
from service.schemas import IndexOut, ModelOut, PartsOut, PassageOut, QueryOut, TermOut

STRICT = ConfigDict(extra="forbid", strict=True)
Text = Annotated[str, Field(min_length=1)]
IndexField = Annotated[
    str | None,
    Field(pattern=f"^{INDEX_NAME.pattern}$", description="Index to ask; the service's default when absent."),
]
Fingerprint = Annotated[
    str | None, Field(description="Artifact the answer must come from; another one served is a 409.")
]
TimeoutMs = Annotated[int | None, Field(ge=1, description="Give up after this; never later than the service.")]


class ExplainRequest(BaseModel):
    """A query, and a document or any text to hold it against: exactly one of `id` and `text`."""

    model_config = STRICT

    query: Annotated[Text, Field(description="What was looked for, in plain words.")]
    id: Annotated[
        str | None,
        Field(min_length=1, max_length=1_024, description="A document of the index, whether a search finds it or not."),
    ] = None
    text: Annotated[
        str | None, Field(min_length=1, description="Any text; it is cut and encoded as a document of the index is.")
    ] = None
    index: IndexField = None
    filter: Annotated[
        dict[str, JsonValue] | None, Field(description="As of the search; it decides results and rank.")
    ] = None
    limit: Annotated[int, Field(ge=1, description="Results of the search that `in_results` speaks of.")] = 10
    rank: Annotated[
        bool, Field(description="Find the true rank too, which may take as long as the service allows.")
    ] = False
    fingerprint: Fingerprint = None
    timeout_ms: TimeoutMs = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.id is None) == (self.text is None):
            raise ValueError("give either id or text")
        return self


class WordOut(BaseModel):
    """What one word adds to the OT part: its vocabulary entries added up."""

    word: str
    entries: list[str]
    query_weight: float
    document_weight: float
    contribution: float
    in_query: Annotated[bool, Field(description="The query holds it, or a piece of it; else the model added it.")]
    in_document: Annotated[bool, Field(description="The same of the document's passage.")]


class LonelyOut(BaseModel):
    """A word that one side has and the other lacks; the model added it unless the text holds it."""

    word: str
    weight: float
    in_text: bool


class UnmatchedOut(BaseModel):
    """The strongest words without a partner, of each side."""

    query: list[LonelyOut]
    document: list[LonelyOut]


class ExplainMeta(BaseModel):
    """How the explanation came about; times in milliseconds by stage."""

    took_ms: dict[str, float]
    model: ModelOut
    index: IndexOut
    query: QueryOut


class ExplainResponse(BaseModel):
    """One score, taken apart. `parts.cls + parts.ot` is `score`; the contributions of words, or of terms, add up to
    `parts.ot`."""

    id: Annotated[str | None, Field(description="The document that was asked for.")] = None
    score: float
    parts: PartsOut
    rank: Annotated[
        int | None, Field(description="1 and the number of documents that score higher under the filter.")
    ] = None
    rank_at_least: Annotated[
        int | None, Field(description="Instead of `rank`, when there was no time to look at all documents.")
    ] = None
    in_results: Annotated[
        bool | None, Field(description="Whether a search with this query, filter and limit answers with it.")
    ] = None
    matches_filter: Annotated[bool | None, Field(description="Whether the filter lets the document through.")] = None
    passage: PassageOut
    words: list[WordOut]
    terms: list[TermOut]
    unmatched: UnmatchedOut
    meta: ExplainMeta


class EncodeRequest(BaseModel):
    """Texts to encode, all as queries or all as documents."""

    model_config = STRICT

    texts: Annotated[list[Text], Field(min_length=1, description="Each is one vector; a long one is cut, and says so.")]
    role: Annotated[
        Literal["query", "document"], Field(description="Decides prompt, window and how many words are kept.")
    ] = "document"
    index: IndexField = None
    fingerprint: Fingerprint = None
    timeout_ms: TimeoutMs = None


class SparseOut(BaseModel):
    """The bag of weighted words: three lists of one length, in ascending order of index."""

    indices: list[int]
    values: list[float]
    entries: Annotated[list[str], Field(description="What each index stands for in the vocabulary.")]


class EncodingOut(BaseModel):
    """Both vectors of one text, from one pass."""

    cls: list[float]
    ot: SparseOut
    tokens: Annotated[int, Field(description="Length of the whole text, a prompt counted.")]
    truncated: Annotated[bool, Field(description="Whether the model saw less than the whole text.")]


class EncodeResponse(BaseModel):
    """Encodings in the order of the texts."""

    encodings: list[EncodingOut]
    role: Literal["query", "document"]
    model: ModelOut
    took_ms: dict[str, float]
