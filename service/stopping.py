"""How a process ends: it says so, goes on answering until a balancer has noticed, finishes what it has begun, and goes.

The first signal begins it, the second ends the process where it stands, which loses no write: each was in the journal
before it was answered. Whatever hangs, the end comes.
"""

import logging
import os
import signal
from collections.abc import Callable
from threading import Timer
from types import FrameType

import uvicorn

LOGGER = logging.getLogger("dupmae.stopping")

SIGNALS = (signal.SIGINT, signal.SIGTERM)

CLOSE_S = 3.0
"""How long closing may take after the last request: a thread may still be waiting for a store."""


class Stop:
    """What a server does on a signal.

    Args:
        server: Stops taking connections when it is told to, and ends when the open ones are done.
        announce: Called first; from then on the process says that it is not ready.
        lead_s: How long SIGTERM lets it take requests after that. Ctrl-C does not wait: no balancer sends it.
        drain_s: How long `server` waits for requests that are being answered.
    """

    def __init__(self, server: uvicorn.Server, announce: Callable[[], None], *, lead_s: float, drain_s: float) -> None:
        self._server = server
        self._announce = announce
        self._lead_s = lead_s
        self._drain_s = drain_s

    def begin(self, sig: int, frame: FrameType | None) -> None:
        """Handle the first signal."""
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        self._announce()
        lead_s = self._lead_s if sig == signal.SIGTERM else 0.0
        LOGGER.warning("stopping in %g s, and in %g s at most; again to stop at once", lead_s, lead_s + self._drain_s)
        _after(lead_s, self._close)
        _after(lead_s + self._drain_s + CLOSE_S, _give_up)

    def _close(self) -> None:
        self._server.should_exit = True


def _give_up() -> None:
    LOGGER.error("not everything ended in time; raise DUPMAE_DRAIN_S if requests may take that long")
    os._exit(1)


def _after(seconds: float, call: Callable[[], None]) -> None:
    timer = Timer(seconds, call)
    timer.daemon = True
    timer.start()
