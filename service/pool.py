"""Threads for calls that block, with a bounded queue before them.

Who waits for a thread waits on the event loop, and nothing is handed to a thread before one is free. So a caller who
gives up, cancelled or late, leaves nothing behind, and behind a store that hangs there are never more calls than
threads. Each opened build has its own pool, so that one that hangs takes no thread from another.
"""

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import TypeVar

from service.queueing import DrainRate

T = TypeVar("T")


class Pool:
    """The threads of one opened build. Made and used on the event loop.

    Args:
        threads: Calls that run at once.
        max_queue: Calls that may wait for a thread.
        max_wait_s: How long they may have to, by the time that calls took lately.
    """

    def __init__(self, threads: int, max_queue: int, max_wait_s: float = math.inf) -> None:
        self._threads = threads
        self._max_queue = max_queue
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._free = asyncio.Semaphore(threads)
        self._rate = DrainRate(max_wait_s)
        self.depth = 0

    def check(self, coming: int = 0) -> None:
        """Whether there is room for one more caller.

        Args:
            coming: Callers who were let in and do not wait yet.

        Raises:
            QueueFull: `max_queue` callers are before this one, or so many that it would wait too long.
        """
        if coming or self._free.locked():
            before = self.depth + coming
            self._rate.check(before, f"{before} searches are waiting for the store", most=self._max_queue)

    async def begin(self, call: Callable[[], T]) -> "Future[T]":
        """Wait for a thread, and return the future of the call that has begun in it. `check` says for how long."""
        self.depth += 1
        try:
            await self._free.acquire()
        finally:
            self.depth -= 1
        running = self._executor.submit(call)
        loop = asyncio.get_running_loop()
        ended = partial(self._ended, perf_counter())
        running.add_done_callback(lambda _: loop.call_soon_threadsafe(ended))
        return running

    def close(self) -> None:
        """End the threads; one that is in a call ends after it."""
        self._executor.shutdown(wait=False)

    def _ended(self, began: float) -> None:
        self._rate.left(self._threads, seconds=perf_counter() - began)
        self._free.release()
