"""The live quality probe: the queries that a build keeps, asked of it again and again while it serves.

They go the way of callers' searches, one at a time, spread over `DUPMAE_PROBE_S`, and only when nobody else is served:
the answer to "does it still find what it found when it was published", at the cost of one search every few seconds. A
round is of one build. It is whole or it counts for nothing: a mean over the queries that happened to succeed would be
of others than the build's own figure is of.

Whatever becomes of a round, callers do not notice. None of it is in their metrics, caches or queues.
"""

import asyncio
import logging
from collections.abc import Callable

import numpy as np

from indexer.probe_set import TOP, Figures, ProbeQuery, ProbeSet
from indexer.probing import measured
from indexer.store import Build
from model.vector import Parts
from service.answering import Answering
from service.aside import Aside
from service.caller import ANYBODY
from service.cursors import Cursors
from service.metrics import Metrics
from service.probe_metrics import Outcome, ProbeMetrics
from service.schemas import SearchRequest, SearchResponse
from service.serving import Serving
from service.settings import Settings

LOGGER = logging.getLogger("dupmae.probe")

GIVE_WAY_S = 0.1
"""How long to stand back when callers are served, before looking for a pause again."""


class Prober:
    """The probes of one app, one for each index that it has opened.

    Args:
        serving: Whose builds are asked.
        settings: Say how long a round takes.
        metrics: Told what was measured.
        cursors: As `Answering` wants them; no page is turned.
        leaving: Whether the app is about to end, and nothing is asked any more.
    """

    def __init__(
        self, serving: Serving, settings: Settings, metrics: Metrics, cursors: Cursors, *, leaving: Callable[[], bool]
    ) -> None:
        self._serving = serving
        self._settings = settings
        self._metrics = metrics.probe
        self._cursors = cursors
        self._leaving = leaving
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._metrics.spread(settings.probe_s)

    def begin(self, index: str) -> None:
        """Probe an index from now on, unless the probe is off. Called once for each, when it is open."""
        if self._settings.probe_s and not self._closed:
            self._tasks.append(asyncio.create_task(self._probe(index)))

    async def close(self) -> None:
        """Ask no more, and wait for the queries under way."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _probe(self, index: str) -> None:
        aside = Aside(self._serving, self._leaving)
        answering = Answering(aside, self._settings, Metrics(), self._cursors)
        probe = Probe(index, aside, answering=answering, metrics=self._metrics, interval_s=self._settings.probe_s)
        try:
            await probe.run()
        finally:
            aside.close()


class Probe:
    """The probe of one index.

    Args:
        index: Its name.
        aside: Tells which build answers, and whether anybody is served.
        answering: Asks it, from a desk of `aside`.
        metrics: Told what was measured.
        interval_s: Time over which a round is spread.
    """

    def __init__(
        self, index: str, aside: Aside, *, answering: Answering, metrics: ProbeMetrics, interval_s: float
    ) -> None:
        self._index = index
        self._aside = aside
        self._answering = answering
        self._metrics = metrics
        self._interval_s = interval_s
        self._build_id = ""
        self._failure = ""

    async def run(self) -> None:
        """Ask round after round."""
        while True:
            try:
                outcome = await self._follow()
            except Exception as error:  # noqa: BLE001 - whatever a round breaks on, the service goes on, and so does this
                self._failed(error)
                outcome = "failed"
            if outcome:
                self._metrics.ended(self._index, outcome)
            if outcome in {None, "failed"}:
                await asyncio.sleep(self._interval_s)

    async def _follow(self) -> Outcome | None:
        """Ask the build that answers now for one round; None when it keeps nothing to ask."""
        build = await self._aside.build(self._index)
        if build.id != self._build_id:
            await self._meet(build)
        return await self._round(build, build.probe) if build.probe else None

    async def _meet(self, build: Build) -> None:
        if build.probe:  # a bootstrap of tens of milliseconds, which no caller should wait for
            await asyncio.to_thread(getattr, build.probe, "own")
        self._build_id = build.id
        self._metrics.began(self._index, build.probe)
        if build.probe is None:
            LOGGER.info(
                "build %s of index %r keeps no queries, so its quality is not probed; unless its texts have too few "
                "words, `dupmae index publish %s --index %s` gives it some",
                build.id,
                self._index,
                build.id,
                self._index,
            )

    async def _round(self, build: Build, asked: ProbeSet) -> Outcome:
        figures: list[Figures] = []
        for query in asked.queries:
            await asyncio.sleep(self._interval_s / len(asked.queries))
            if not await self._pause():
                return "busy"
            answer = await self._ask(query)
            if answer.meta.index.build != build.id:
                return "switched"
            figures.append(_figures(query, answer))
        means = np.mean(figures, axis=0)
        self._metrics.measured(self._index, dict(zip(Figures._fields, map(float, means), strict=True)))
        self._failure = ""
        return "complete"

    async def _pause(self) -> bool:
        """Wait until nobody is served or waits to be; False when that does not come in the time of a whole round."""
        now = asyncio.get_running_loop().time
        until = now() + self._interval_s
        while not await self._aside.is_free(self._index):
            if now() > until:
                return False
            await asyncio.sleep(GIVE_WAY_S)
        return True

    async def _ask(self, query: ProbeQuery) -> SearchResponse:
        asked = {"query": query.text, "index": self._index, "limit": TOP, "with": ["parts"]}
        deadline = self._answering.deadline(None)
        return await self._answering.search(SearchRequest.model_validate(asked), ANYBODY, deadline=deadline)

    def _failed(self, error: Exception) -> None:
        """Said once, until another reason or a whole round comes."""
        reason = str(error) or type(error).__name__
        if reason != self._failure:
            LOGGER.warning("index %r: a round of the quality probe failed: %s", self._index, reason)
        self._failure = reason


def _figures(query: ProbeQuery, answer: SearchResponse) -> Figures:
    found = [(result.id, Parts(result.parts.cls, result.parts.ot)) for result in answer.results if result.parts]
    return measured(found, query.right)
