"""What was computed lately, so that the same question is not worked on twice.

Nothing here is ever invalidated. A key names everything that its value depends on, and what depends on a build names
the opening of that build and its position in the journal: after a switch, a rollback or a live write the old entries
are not found any more, and age out. The cost: until then they take room, within the bound.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

V = TypeVar("V")

Kind = Literal["vectors", "answers"]

ENTRY_BYTES = 600
"""What an entry takes besides its value: key, arrays' headers, two places in a table."""


class Cache:
    """Values by kind and key, the least recently used dropped first. Used on the event loop.

    Args:
        max_bytes: Bound on the sizes of all entries; 0 keeps nothing.
        count: Told of each look-up, and whether it was a hit.
    """

    def __init__(self, max_bytes: int, count: Callable[[Kind, bool], None]) -> None:
        self._max_bytes = max_bytes
        self._count = count
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_on(self) -> bool:
        """Whether it keeps anything."""
        return self._max_bytes > 0

    def get(self, kind: Kind, key: Hashable) -> Any | None:
        """The value that was put under this key, or None."""
        found = self._entries.get((kind, key))
        self._count(kind, found is not None)
        if found is None:
            return None
        self._entries.move_to_end((kind, key))
        return found[0]

    def put(self, kind: Kind, key: Hashable, value: Any, *, size: int) -> None:
        """Keep a value of `size` bytes, unless it would take more than an eighth of all there is room for."""
        size += ENTRY_BYTES
        if size > self._max_bytes // 8:
            return
        _, before = self._entries.pop((kind, key), (None, 0))
        self._entries[kind, key] = value, size
        self.bytes += size - before
        while self.bytes > self._max_bytes:
            _, (_, dropped) = self._entries.popitem(last=False)
            self.bytes -= dropped


@dataclass(slots=True)
class _Flight:
    task: asyncio.Task[Any]
    waiting: int = 0


class Flights:
    """Work that is under way, by key: who asks for the same waits for it instead of doing it again.

    The work belongs to nobody alone. It goes on as long as one of those who asked still waits, each until his own
    deadline, and is cancelled when the last has gone. An error reaches all of them; the next to ask tries again.
    """

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight] = {}

    async def join(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """The outcome of the work under way for this key, or else of `work`, which begins now."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.create_task(work()))
        flight.waiting += 1
        try:
            outcome: V = await asyncio.shield(flight.task)
            return outcome
        finally:
            flight.waiting -= 1
            if flight.task.done() or not flight.waiting:
                flight.task.cancel()
                if self._flights.get(key) is flight:
                    del self._flights[key]
