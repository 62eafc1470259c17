"""Stages that overlap: an iterator that runs ahead in a thread, and work that is in flight but comes back in order.

Both are bounded, so a slow stage holds back the faster ones before it, and memory does not grow with the sources.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import Full, Queue
from threading import Event, Lock, Thread
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_POLL_S, _LEAVE_S = 0.1, 5.0


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


_END = object()


@contextmanager
def ahead(items: Iterable[T], each: Callable[[T], R], size: int) -> Iterator[Iterator[R]]:
    """Iterate over what `each` makes of `items` in a thread that is at most `size` of them ahead.

    Exceptions are raised where it is read. Leaving the block waits for `each`, so that what it works with may be closed
    then, and not for `items`: a source that gives nothing, such as an idle pipe, must not hold us.
    """
    queue: Queue[object] = Queue(size)
    left, working = Event(), Lock()

    def put(item: object) -> None:
        while not left.is_set():
            try:
                return queue.put(item, timeout=_POLL_S)
            except Full:
                continue

    def run() -> None:
        try:
            for item in items:
                with working:
                    if left.is_set():
                        return
                    made = each(item)
                put(made)
            put(_END)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that reads
            put(_Failed(error))

    Thread(target=run, name="ahead", daemon=True).start()
    try:
        yield _read(queue)
    finally:
        left.set()
        if working.acquire(timeout=_LEAVE_S):  # and no longer: it may wait for a store that is away
            working.release()


def in_flight(items: Iterable[T], submit: Callable[[T], R], depth: int) -> Iterator[R]:
    """What `submit` makes of each item, in order, with `depth` more submitted meanwhile.

    When `items` fails, what was submitted comes first and then its exception.

    >>> began = []
    >>> for number in in_flight(range(4), lambda n: began.append(n) or n, depth=1):
    ...     print(number, began)
    0 [0, 1]
    1 [0, 1, 2]
    2 [0, 1, 2, 3]
    3 [0, 1, 2, 3]
    """
    waiting: deque[R] = deque()
    try:
        for item in items:
            waiting.append(submit(item))
            if len(waiting) > depth:
                yield waiting.popleft()
    except Exception:  # whatever it is, it is raised again; what was submitted is not lost to it
        yield from waiting
        raise
    yield from waiting


def _read(queue: "Queue[object]") -> Iterator[T]:
    while (item := queue.get()) is not _END:
        if isinstance(item, _Failed):
            raise item.error
        yield item  # type: ignore[misc]  # the queue holds T, the end and failures
