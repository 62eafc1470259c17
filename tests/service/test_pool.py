"""Calls here block on an event until the test lets them go, so nothing sleeps."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from service.pool import Pool
from service.queueing import QueueFull

pytestmark = pytest.mark.anyio


class Calls:
    """Blocking calls that remember who began."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()

    def numbered(self, number: int) -> Callable[[], int]:
        def call() -> int:
            self.begun.append(number)
            self.entered.release()
            assert self.gate.wait(10)
            return number

        return call

    async def until_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=10)


async def ask(pool: Pool, calls: Calls, *numbers: int) -> list[asyncio.Task[int]]:
    async def outcome(number: int) -> int:
        return await (await pool.begin(calls.numbered(number)))

    tasks = [asyncio.create_task(outcome(number)) for number in numbers]
    await asyncio.sleep(0)
    return tasks


async def test_calls_begin_in_order_as_threads_become_free() -> None:
    pool, calls = Pool(1, max_queue=8), Calls()
    tasks = await ask(pool, calls, 1, 2, 3)
    await calls.until_entered()
    assert (calls.begun, pool.depth) == ([1], 2)
    calls.gate.set()
    assert await asyncio.gather(*tasks) == [1, 2, 3]
    assert (calls.begun, pool.depth) == ([1, 2, 3], 0)
    pool.close()


async def test_who_gives_up_waiting_never_reaches_a_thread() -> None:
    pool, calls = Pool(1, max_queue=8), Calls()
    first = await ask(pool, calls, 1)
    await calls.until_entered()
    (gone, stays) = await ask(pool, calls, 2, 3)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout_at(asyncio.get_running_loop().time()):
            await ask_one(pool, calls, 4)
    gone.cancel()
    await asyncio.wait([gone])
    assert pool.depth == 1
    calls.gate.set()
    assert await asyncio.gather(*first, stays) == [1, 3]
    assert calls.begun == [1, 3]
    pool.close()


async def ask_one(pool: Pool, calls: Calls, number: int) -> int:
    return await (await pool.begin(calls.numbered(number)))


async def test_a_full_queue_refuses_at_once_and_recovers() -> None:
    pool, calls = Pool(1, max_queue=1), Calls()
    first = await ask(pool, calls, 1)
    await calls.until_entered()
    second = await ask(pool, calls, 2)
    with pytest.raises(QueueFull, match="1 searches are waiting for the store; ask again in 1 s"):
        pool.check()
    calls.gate.set()
    assert await asyncio.gather(*first, *second) == [1, 2]
    assert await ask_one(pool, calls, 4) == 4
    pool.close()


async def test_those_who_are_still_on_their_way_count() -> None:
    pool = Pool(1, max_queue=2)
    pool.check(coming=1)
    with pytest.raises(QueueFull, match="2 searches are waiting for the store"):
        pool.check(coming=2)
    pool.close()


async def test_a_caller_who_leaves_while_the_call_runs_gives_the_thread_back_when_it_ends() -> None:
    pool, calls = Pool(1, max_queue=8), Calls()
    (gone,) = await ask(pool, calls, 1)
    await calls.until_entered()
    gone.cancel()
    await asyncio.wait([gone])
    (waits,) = await ask(pool, calls, 2)
    assert calls.begun == [1]
    calls.gate.set()
    assert await waits == 2
    pool.close()
