"""A store that is away is waited for: the same call again, with pauses that grow, up to a bound."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from indexer.store import StoreUnavailable

T = TypeVar("T")

LOGGER = logging.getLogger("dupmae.build")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0


def patiently(
    call: Callable[[], T],
    *,
    for_s: float,
    tell: Callable[[str], None] = LOGGER.warning,
    sleep: Callable[[float], None] = lambda seconds: time.sleep(seconds),
) -> T:
    """The result of `call`, tried again while the store is away.

    Only for calls that may be made twice, as all writes to a build may: its points have ids of their own.

    Args:
        call: What to do.
        for_s: Seconds of pauses after which the last failure is raised.
        tell: Told of each failure and the pause after it.
        sleep: How to pause.

    Raises:
        StoreUnavailable: It was away for longer.
    """
    waited, pause = 0.0, FIRST_PAUSE_S
    while True:
        try:
            return call()
        except StoreUnavailable as error:
            if waited + pause > for_s:
                raise
            tell(f"{error} Trying again in {pause:g} s.")
            sleep(pause)
            waited, pause = waited + pause, min(2 * pause, LONGEST_PAUSE_S)
