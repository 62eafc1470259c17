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

    >>> rate = DrainRate()
    >>> rate.left(4, seconds=2.0)
    >>> rate.retry_after_s(waiting=100)
    13
    """

    def __init__(self) -> None:
        self._seconds_each = 0.0

    def left(self, number: int, *, seconds: float) -> None:
        """So many left the queue together, and the next could not follow for so long."""
        self._seconds_each += (seconds / number - self._seconds_each) / 4

    def retry_after_s(self, waiting: int) -> int:
        """Whole seconds in which so many will have left, from 1 to `LONGEST_RETRY_S`."""
        return min(max(1, math.ceil(waiting * self._seconds_each)), LONGEST_RETRY_S)
