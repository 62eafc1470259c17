"""The routes of text-embeddings-inference, for its clients.

One default differs, and must: a vector is not brought to length 1 unless `normalize` says so. Length carries meaning in
a model that was trained on inner products; without it, texts would rank otherwise than the index ranks them.
"""

from importlib.metadata import version
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, RootModel

from model.encoder import Encoder, Token
from model.vector import FusedVector
from service.batching import Role
from service.dialects import TeiErrorOut
from service.embedding import Embedder, Texts, Wanted
from service.routes.reply import JsonRoute, reply, unless_gone
from service.routes.state import AppEmbedder, AppSettings, may_confined

router = APIRouter(tags=["tei"], route_class=JsonRoute)

Prompt = Annotated[Role | None, Field(description="The role of the texts; `document` when not given.")]


class SparseRequest(BaseModel):
    """Texts, and the role they have."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"inputs": ["compress a file"], "prompt_name": "query"}]},
    )

    inputs: Texts
    prompt_name: Prompt = None
    truncate: Annotated[bool | None, Field(description="Cut what is longer than the window; refused unless set.")] = (
        None
    )
    truncation_direction: Annotated[
        Literal["right", "Right"] | None, Field(description="Texts are cut at their end only.")
    ] = None


class EmbedRequest(SparseRequest):
    """Texts, the role they have, and whether their vectors are brought to length 1."""

    normalize: Annotated[bool | None, Field(description="Vectors of length 1; not done unless set.")] = None
    dimensions: Annotated[int | None, Field(ge=1, description="None other than the model's own.")] = None


class TokenizeRequest(BaseModel):
    """Texts to take apart."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"inputs": ["compress a file"]}]}
    )

    inputs: Texts
    add_special_tokens: bool = True
    prompt_name: Prompt = None


class EmbedResponse(RootModel[list[list[float]]]):
    """A [CLS] vector for each text."""


class SparseValue(BaseModel):
    """The weight of one vocabulary entry."""

    index: int
    value: float


class SparseResponse(RootModel[list[list[SparseValue]]]):
    """A bag of weighted words for each text."""


class TokenOut(BaseModel):
    """One token, and the characters of the text it stands for; a special token stands for none."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


def _errors(*statuses: int) -> dict[int | str, dict[str, object]]:
    return {status: {"model": TeiErrorOut} for status in statuses}


SEARCH = [Depends(may_confined("search"))]  # no route here reads a document
ERRORS = _errors(400, 413, 415, 422, 429, 503, 504)


@router.post("/", dependencies=SEARCH, include_in_schema=False)
@router.post("/embed", response_model=EmbedResponse, summary="Embed texts", dependencies=SEARCH, responses=ERRORS)
async def embed(request: Request, body: EmbedRequest, embedder: AppEmbedder) -> Response:
    """The [CLS] vectors of texts, one each, in order."""
    request.state.log["texts"] = len(body.inputs)
    return reply(await unless_gone(request, _dense(body, embedder)))


@router.post(
    "/embed_sparse",
    response_model=SparseResponse,
    summary="Embed texts as bags of words",
    dependencies=SEARCH,
    responses=ERRORS,
)
async def embed_sparse(request: Request, body: SparseRequest, embedder: AppEmbedder) -> Response:
    """The bags of weighted words of texts, one each, in order."""
    request.state.log["texts"] = len(body.inputs)
    return reply(await unless_gone(request, _sparse(body, embedder)))


@router.post("/tokenize", summary="Take texts apart", dependencies=SEARCH, responses=ERRORS)
async def tokenize(body: TokenizeRequest, embedder: AppEmbedder) -> list[list[TokenOut]]:
    """The tokens of texts, whole, however long they are."""
    embedder.check_count(Wanted(body.inputs, "inputs"))
    async with embedder.desk() as desk:
        return await desk.run(_tokens, desk.searcher.encoder, body)


@router.get("/info", summary="Say what is served", dependencies=SEARCH, responses=_errors(503, 504))
async def info(embedder: AppEmbedder, settings: AppSettings) -> JSONResponse:
    """The model of the default index and the bounds of requests, under the names that the server of this route has."""
    async with embedder.desk() as desk:
        manifest = desk.searcher.encoder.artifact.manifest
    facts = {
        "model_id": manifest.name,
        "model_sha": manifest.fingerprint,
        "model_dtype": manifest.precision,
        "model_type": {"embedding": {"pooling": manifest.pooling}},
        "max_concurrent_requests": settings.max_queue,
        "max_input_length": manifest.max_document_tokens,
        "max_batch_tokens": settings.max_batch_tokens,
        "max_batch_requests": settings.max_batch,
        "max_client_batch_size": settings.max_texts,
        "auto_truncate": False,
        "tokenization_workers": 1,
        "version": version("dupmae-search"),
        "sha": None,
        "docker_label": None,
    }
    return JSONResponse(facts)


@router.get("/health", summary="Whether texts can be embedded", response_class=Response, responses=_errors(503))
async def health(embedder: AppEmbedder) -> Response:
    """200 and nothing else once the default index has been opened; 503 before."""
    async with embedder.desk():
        return Response()


async def _dense(body: EmbedRequest, embedder: Embedder) -> EmbedResponse:
    embedded = await embedder.embed(_wanted(body, body.dimensions))
    return EmbedResponse([vector.tolist() for vector in embedded.vectors(normalize=body.normalize is True)])


async def _sparse(body: SparseRequest, embedder: Embedder) -> SparseResponse:
    embedded = await embedder.embed(_wanted(body))
    return SparseResponse([_bag(encoding.vector) for encoding in embedded.encodings])


def _wanted(body: SparseRequest, dimensions: int | None = None) -> Wanted:
    return Wanted(
        body.inputs,
        "inputs",
        role=body.prompt_name or "document",
        truncate=body.truncate is True,
        dimensions=dimensions,
    )


def _bag(vector: FusedVector) -> list[SparseValue]:
    pairs = zip(vector.ot_indices.tolist(), vector.ot_values.tolist(), strict=True)
    return [SparseValue(index=index, value=value) for index, value in pairs]


def _tokens(encoder: Encoder, body: TokenizeRequest) -> list[list[TokenOut]]:
    manifest = encoder.artifact.manifest
    prompts = {None: "", "query": manifest.query_prompt, "document": manifest.document_prompt}
    texts = [prompts[body.prompt_name] + text for text in body.inputs]
    return [[_token(token) for token in tokens] for tokens in encoder.tokens(texts, special=body.add_special_tokens)]


def _token(token: Token) -> TokenOut:
    start, stop = token.span or (None, None)
    return TokenOut(id=token.id, text=token.text, special=token.span is None, start=start, stop=stop)
