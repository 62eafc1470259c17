"""A queue that is full says when to come again, by how fast it moves."""

import math

LONGEST_RETRY_S = 30


class QueueFull(Exception):
    """As many wait as may.

    Attributes:
        retry_after_s: When those that wait will be through, at the present rate.
    """

    def __init__(self, waiting: str, retry_after_s: int) -> None:
        super().__init__(f"{waiting}; ask again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class DrainRate:
    """How fast a queue moves: a mean that forgets what is long past.

    Args:
        max_wait_s: Who would wait longer than this is better refused: the answer would come too late.

    >>> rate = DrainRate(max_wait_s=10)
    >>> rate.left(4, seconds=2.0)
    >>> rate.check(20, "20 wait")
    >>> rate.check(100, "100 wait")
    Traceback (most recent call last):
    service.queueing.QueueFull: 100 wait; ask again in 13 s
    """

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._seconds_each = 0.0

    def left(self, number: int, *, seconds: float) -> None:
        """So many left the queue together, and the next could not follow for so long."""
        self._seconds_each += (seconds / number - self._seconds_each) / 4

    def check(self, waiting: int, what: str, *, most: int | None = None) -> None:
        """Raise QueueFull when at least `most` wait, or so many that the next would be late; `what` says who waits."""
        wait_s = waiting * self._seconds_each
        if wait_s > self._max_wait_s or (most is not None and waiting >= most):
            raise QueueFull(what, min(max(1, math.ceil(wait_s)), LONGEST_RETRY_S))
