"""Both vectors of some texts, for those who store or compare them themselves."""

import asyncio
from collections.abc import Sequence

from model.encoder import Encoding
from service.answering import check_artifact
from service.batching import Encoded
from service.explain_schemas import EncodeRequest, EncodeResponse, EncodingOut, SparseOut
from service.explaining import check_text
from service.problems import BadRequest
from service.schemas import ModelOut
from service.serving import Serving
from service.settings import Settings


async def encode(body: EncodeRequest, serving: Serving, settings: Settings, *, deadline: float) -> EncodeResponse:
    """Encode texts in one role; they wait in the encoder's queue like the queries of searches.

    Raises:
        BadRequest: Too many or too long texts, or one without a vector; the message names it.
        WrongArtifact, TimeoutError, IndexNotFound, NotReady, QueueFull: As `Answering.search`.
    """
    if len(body.texts) > settings.max_texts:
        raise BadRequest("texts", f"{len(body.texts)} texts; at most {settings.max_texts} are taken")
    for position, text in enumerate(body.texts):
        check_text(f"texts.{position}", text, settings)
    async with asyncio.timeout_at(deadline), serving.desk(body.index or settings.index) as desk:
        check_artifact(body.fingerprint, desk)
        outcomes = await desk.batcher.encode_all(body.texts, role=body.role, deadline=deadline)
        vocabulary = desk.searcher.encoder.vocabulary
        encoded = [_checked(position, outcome) for position, outcome in enumerate(outcomes)]
        manifest = desk.searcher.encoder.artifact.manifest
        took = {"queue": max(one.queued for one in encoded), "encode": max(one.encoded for one in encoded)}
        return EncodeResponse(
            encodings=[_out(one.encoding, vocabulary) for one in encoded],
            role=body.role,
            model=ModelOut(name=manifest.name, fingerprint=desk.searcher.encoder.fingerprint),
            took_ms={stage: round(1000 * seconds, 3) for stage, seconds in took.items()},
        )


def _checked(position: int, outcome: Encoded | Exception) -> Encoded:
    if not isinstance(outcome, Encoded):
        raise BadRequest(f"texts.{position}", "no word in it that the model can weigh; say more") from outcome
    return outcome


def _out(encoding: Encoding, vocabulary: Sequence[str]) -> EncodingOut:
    vector = encoding.vector
    indices = vector.ot_indices.tolist()
    return EncodingOut(
        cls=vector.cls.tolist(),
        ot=SparseOut(
            indices=indices, values=vector.ot_values.tolist(), entries=[vocabulary[index] for index in indices]
        ),
        tokens=encoding.tokens,
        truncated=encoding.truncated,
    )
