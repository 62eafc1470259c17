"""Threads for calls that block, with a bounded queue before them.

Who waits for a thread waits on the event loop, and nothing is handed to a thread before one is free. So a caller who
gives up, cancelled or late, leaves nothing behind, and behind a store that hangs there are never more calls than
threads. Each opened build has its own pool, so that one that hangs takes no thread from another.
"""

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
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
        self.running = 0

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

    async def begin(self, call: Callable[[], T], ended: Callable[[], None] = lambda: None) -> asyncio.Future[T]:
        """Wait for a thread, and return the outcome-to-be of the call that has begun in it. `check` says for how long.

        Args:
            call: What the thread does.
            ended: Called when it has done it, whether or not anybody waits for the outcome still.
        """
        self.depth += 1
        try:
            await self._free.acquire()
        finally:
            self.depth -= 1
        self.running += 1
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()
        settle = partial(self._ended, perf_counter(), ended, outcome)
        running = self._executor.submit(copy_context().run, call)
        # The loop is woken once for all of it: each time, it and the thread are in each other's way.
        running.add_done_callback(lambda done: loop.call_soon_threadsafe(settle, done))
        return outcome

    def close(self) -> None:
        """End the threads; one that is in a call ends after it."""
        self._executor.shutdown(wait=False)

    def _ended(self, began: float, ended: Callable[[], None], outcome: asyncio.Future[T], done: "Future[T]") -> None:
        self.running -= 1
        self._rate.left(self._threads, seconds=perf_counter() - began)
        self._free.release()
        ended()
        if outcome.done():  # whoever waited has gone
            return
        if error := done.exception():
            outcome.set_exception(error)
        else:
            outcome.set_result(done.result())
