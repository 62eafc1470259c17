"""`POST /v1/embeddings` and `GET /v1/models` as OpenAI's clients ask for them.

Beyond that protocol, `normalize` and `truncate` are taken (clients send them in `extra_body`), and done only when set.
"""

import base64
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from service.desk import Desk
from service.dialects import OpenAIErrorOut
from service.embedding import Embedder, Texts, Wanted, role_of, roles
from service.routes.reply import JsonRoute, reply, unless_gone
from service.routes.state import AppEmbedder, may_confined

SEARCH = [Depends(may_confined("search"))]  # no route here reads a document

router = APIRouter(tags=["openai"], dependencies=SEARCH, route_class=JsonRoute)


class EmbeddingsRequest(BaseModel):
    """Texts, and the name of the model with the role they have."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"model": "dupmae-minilm:query", "input": "compress a file"}]},
    )

    model: Annotated[
        str,
        Field(
            description="The model's name; with `:query` after it for queries, `:document` or nothing for documents."
        ),
    ]
    input: Texts
    encoding_format: Annotated[Literal["float", "base64"], Field(description="`base64`: float32, little-endian.")] = (
        "float"
    )
    dimensions: Annotated[int | None, Field(ge=1, description="None other than the model's own.")] = None
    user: Annotated[str | None, Field(description="Taken and not kept.")] = None
    normalize: Annotated[bool, Field(description="Vectors of length 1; not done unless set.")] = False
    truncate: Annotated[bool, Field(description="Cut what is longer than the window; refused unless set.")] = False


class EmbeddingOut(BaseModel):
    """The vector of one text."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class UsageOut(BaseModel):
    """Tokens that the model read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """Vectors, in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[EmbeddingOut]
    model: str
    usage: UsageOut


class ServedModel(BaseModel):
    """A name that `model` may have."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["dupmae"] = "dupmae"


class ServedModels(BaseModel):
    """All of these names."""

    object: Literal["list"] = "list"
    data: list[ServedModel]


def _errors(*statuses: int) -> dict[int | str, dict[str, object]]:
    return {status: {"model": OpenAIErrorOut} for status in statuses}


@router.post(
    "/v1/embeddings",
    response_model=EmbeddingsResponse,
    summary="Embed texts",
    responses=_errors(400, 404, 413, 415, 422, 429, 503, 504),
)
async def embeddings(request: Request, body: EmbeddingsRequest, embedder: AppEmbedder) -> Response:
    """The [CLS] vectors of texts, one each, in order."""
    request.state.log["texts"] = len(body.input)
    return reply(await unless_gone(request, _answer(body, embedder)))


@router.get("/v1/models", summary="List the model's names", responses=_errors(503, 504))
async def models(embedder: AppEmbedder) -> ServedModels:
    """The names that `/v1/embeddings` takes."""
    async with embedder.desk() as desk:
        return ServedModels(data=[_served(name, desk) for name in roles(desk.searcher.encoder.artifact.manifest)])


@router.get("/v1/models/{name:path}", summary="Look up a model's name", responses=_errors(404, 503, 504))
async def model(name: Annotated[str, Path(examples=["dupmae-minilm:query"])], embedder: AppEmbedder) -> ServedModel:
    """It, if it is one that `/v1/embeddings` takes."""
    async with embedder.desk() as desk:
        role_of(name, desk.searcher.encoder.artifact.manifest)
        return _served(name, desk)


def _served(name: str, desk: Desk) -> ServedModel:
    return ServedModel(id=name, created=int(desk.build.created.timestamp()))


async def _answer(body: EmbeddingsRequest, embedder: Embedder) -> EmbeddingsResponse:
    wanted = Wanted(body.input, "input", body.model, truncate=body.truncate, dimensions=body.dimensions)
    embedded = await embedder.embed(wanted)
    vectors = embedded.vectors(normalize=body.normalize)
    written = _base64 if body.encoding_format == "base64" else _floats
    return EmbeddingsResponse(
        data=[EmbeddingOut(index=index, embedding=written(vector)) for index, vector in enumerate(vectors)],
        model=body.model,
        usage=UsageOut(prompt_tokens=embedded.tokens_read, total_tokens=embedded.tokens_read),
    )


def _floats(vector: NDArray[np.float32]) -> list[float]:
    floats: list[float] = vector.tolist()
    return floats


def _base64(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
