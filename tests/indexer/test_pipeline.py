"""Stages overlap within bounds, keep their order, and pass on what went wrong."""

import threading
from collections.abc import Iterator

import pytest

from indexer.patience import patiently
from indexer.pipeline import ahead, in_flight
from indexer.store import StoreError, StoreUnavailable


def test_a_reader_is_ahead_by_as_much_as_it_may_be_and_no_more() -> None:
    read: list[int] = []
    full = threading.Event()

    def numbers() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            if len(read) == 4:  # three in the queue, one in the hand
                full.set()
            yield number

    with ahead(numbers(), str, 3) as items:
        assert full.wait(10)
        assert len(read) == 4
        assert list(items) == list(map(str, range(100)))


def test_leaving_waits_for_what_is_made_of_an_item_and_then_makes_nothing_of_others() -> None:
    began, may_end, made = threading.Event(), threading.Event(), list[int]()

    def slow(item: int) -> int:
        began.set()
        assert may_end.wait(10)
        made.append(item)
        return item

    with ahead(iter(range(10**9)), slow, 2):
        assert began.wait(10)
        threading.Timer(0.05, may_end.set).start()
    assert made == [0]


def test_leaving_does_not_wait_for_a_source_that_gives_nothing() -> None:
    asked, ended = threading.Event(), threading.Event()

    def idle() -> Iterator[int]:
        asked.set()
        ended.wait(10)
        yield 1

    made = list[int]()
    with ahead(idle(), made.append, 2):
        assert asked.wait(10)
    assert not ended.is_set()  # nor is there anything to join
    [thread] = [thread for thread in threading.enumerate() if thread.name == "ahead"]
    ended.set()
    thread.join(10)
    assert not made, "nothing may be made of what comes when everything is closed"


def test_what_was_submitted_comes_before_the_failure() -> None:
    def items() -> Iterator[int]:
        yield from (1, 2, 3)
        raise ValueError("cut")

    found: list[int] = []
    with ahead(items(), int, 2) as some, pytest.raises(ValueError, match="cut"):
        found.extend(in_flight(some, lambda item: item, depth=5))
    assert found == [1, 2, 3]


def test_a_store_that_is_away_is_asked_again_with_growing_pauses_and_not_for_ever() -> None:
    pauses, told = list[float](), list[str]()

    def away() -> None:
        raise StoreUnavailable("Qdrant does not answer.")

    with pytest.raises(StoreUnavailable):
        patiently(away, for_s=10, tell=told.append, sleep=pauses.append)
    assert pauses == [0.5, 1, 2, 4]
    assert told[0] == "Qdrant does not answer. Trying again in 0.5 s."


def test_what_waiting_cannot_mend_is_not_waited_for() -> None:
    def broken() -> None:
        raise StoreError("damaged")

    with pytest.raises(StoreError, match="damaged"):
        patiently(broken, for_s=10, sleep=lambda seconds: pytest.fail("waited"))
