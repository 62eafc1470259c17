"""How an explanation is made for a caller who waits: its bounds, its deadline, and the encoder's queue.

The true rank may cost a look at every document. It is looked for by one caller at a time, in nine tenths of the time
that is left, so that nobody loses the explanation by asking for it.
"""

import asyncio
from time import monotonic, perf_counter

from indexer.chunking import Chunker
from indexer.documents import Document
from indexer.points import make_points
from indexer.store import Point
from service.answering import check_artifact, check_limit, check_query
from service.batching import Encoded
from service.caller import Caller
from service.desk import Desk
from service.explain_schemas import ExplainRequest, ExplainResponse
from service.inquiry import Inquiry, explain_document, explain_point, timed
from service.problems import BadRequest
from service.searcher import best_passage
from service.serving import Serving
from service.settings import Settings
from service.spans import span

FOR_THE_RANK = 0.9
"""Of the time that is left."""


class Explaining:
    """Explains the scores of one app."""

    def __init__(self, serving: Serving, settings: Settings) -> None:
        self._serving = serving
        self._settings = settings
        self._ranking = asyncio.Semaphore()

    async def explain(self, body: ExplainRequest, caller: Caller, *, deadline: float) -> ExplainResponse:
        """The answer to one request, from what its caller may see.

        Raises:
            BadRequest: It is out of bounds.
            Forbidden: The caller may not use the index, or the index does not know its tenant.
            DocumentNotFound: The index holds no such document, or not one that the caller may see.
            NoWords: The text has no vector.
            WrongArtifact, TimeoutError, IndexNotFound, NotReady, QueueFull, QueryRefused, StoreError: As
                `Answering.search`.
        """
        check_query(body.query, self._settings)
        check_limit(body.limit, self._settings)
        check_text("text", body.text or "", self._settings)
        index = caller.index(body.index or self._settings.index)
        async with asyncio.timeout_at(deadline), self._serving.desk(index) as desk:
            check_artifact(body.fingerprint, desk)
            with span("encode", role="query") as facts:
                encoded = await desk.batcher.encode(body.query, deadline=deadline)
                facts |= encoded.facts
            if not body.rank:
                return await _explain(desk, body, caller, encoded, deadline)
            async with self._ranking:
                return await _explain(desk, body, caller, encoded, deadline)


def check_text(field: str, text: str, settings: Settings) -> None:
    """Raise BadRequest for a text that is too long to encode."""
    if len(text) > settings.max_text_chars:
        raise BadRequest(field, f"{len(text)} characters; at most {settings.max_text_chars} are taken")


async def _explain(
    desk: Desk, body: ExplainRequest, caller: Caller, encoded: Encoded, deadline: float
) -> ExplainResponse:
    left_s = deadline - asyncio.get_running_loop().time()
    until = monotonic() + FOR_THE_RANK * left_s
    inquiry = Inquiry(
        query=body.query,
        encoding=desk.searcher.asked(encoded.encoding, blindly=caller.tenant is not None),
        filter=caller.filter(body.filter, desk.build),
        sees=caller.sees,
        limit=body.limit,
        rank=body.rank,
        may_go_on=lambda: monotonic() < until,
    )
    began = perf_counter()
    with span("explain", rank=body.rank):
        if body.id is not None:
            answer = await desk.run(explain_document, desk.searcher, inquiry, body.id)
        else:
            points = await _encoded(desk, Document("", text=body.text or ""), deadline)
            best = best_passage(inquiry.encoding.vector, points)
            answer = await desk.run(explain_point, desk.searcher, inquiry, best)
    if body.filter is None:
        answer.matches_filter = None  # nothing is said of the condition that is the caller's tenant
    answer.meta.index.documents = None if caller.tenant else desk.build.documents
    return timed(answer, {"queue": encoded.queued, "encode": encoded.encoded, "explain": perf_counter() - began})


async def _encoded(desk: Desk, document: Document, deadline: float) -> list[Point]:
    """A document as the index would hold it: cut into passages, each encoded in its turn."""
    chunker = await desk.run(Chunker, desk.searcher.encoder, desk.build.chunking)
    [passages] = await desk.run(chunker.split, [document])
    texts = [chunker.passage_text(document, passage) for passage in passages]
    outcomes = await desk.batcher.encode_all(texts, role="document", deadline=deadline)
    pairs = [
        (passage, outcome) for passage, outcome in zip(passages, outcomes, strict=True) if isinstance(outcome, Encoded)
    ]
    if not pairs:
        raise BadRequest("text", "no word in it, or none that the model gives any weight; say more")
    return make_points(document, [passage for passage, _ in pairs], [one.encoding.vector for _, one in pairs])
