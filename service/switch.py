"""When to try again what could not be switched to, and what to say of it."""

import logging
from dataclasses import dataclass

LOGGER = logging.getLogger("dupmae.switch")

LONGEST_WAIT_S = 30.0
"""A build that cannot be loaded is tried this often in the end: soon enough after somebody has mended it."""


@dataclass(slots=True)
class Setback:
    """A build that is published and cannot be served.

    Attributes:
        build_id: That build; empty when it is not known which build is published.
        reason: Why, as it was logged.
        wait_s: How long to wait before the next attempt.
        again_at: When that is, on the event loop's clock.
    """

    build_id: str
    reason: str
    wait_s: float
    again_at: float


class Setbacks:
    """The setback of each index that has one.

    Args:
        poll_s: The first wait; it doubles with each attempt up to `LONGEST_WAIT_S`.
    """

    def __init__(self, poll_s: float) -> None:
        self._poll_s = poll_s
        self._by_index: dict[str, Setback] = {}

    def due(self, index: str, build_id: str, now: float) -> bool:
        """Whether to try this build now: always unless it failed a short while ago."""
        setback = self._by_index.get(index)
        return setback is None or setback.build_id != build_id or setback.again_at <= now

    def failed(self, index: str, build_id: str, reason: str, now: float) -> None:
        """An attempt failed; logged once for each build and reason."""
        before = self._by_index.get(index)
        same = before is not None and before.build_id == build_id
        wait_s = min(2 * before.wait_s, LONGEST_WAIT_S) if before and same else self._poll_s
        self._by_index[index] = Setback(build_id, reason, wait_s, now + wait_s)
        if before is None or not same or before.reason != reason:
            what = f"build {build_id}" if build_id else "what is published"
            LOGGER.error("index %r cannot follow %s, and answers as before: %s", index, what, reason)

    def reason(self, index: str) -> str | None:
        """Why the index cannot follow what is published; None when it does."""
        setback = self._by_index.get(index)
        return setback.reason if setback else None

    def try_at_once(self, index: str) -> None:
        """What failed is due again."""
        if setback := self._by_index.get(index):
            setback.again_at = 0.0

    def over(self, index: str) -> None:
        """The index answers from what is published."""
        if self._by_index.pop(index, None):
            LOGGER.warning("index %r answers from what is published again", index)
