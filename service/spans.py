"""Spans: the stages of a request, marked where they happen, for a request that is traced (`service.tracing`).

Whether it is says a context variable, which follows the request into its tasks and threads. Where nobody traces, a
stage costs a look at that variable, and nothing of OpenTelemetry is imported.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

Fact = str | int | float | bool
Facts = dict[str, Fact]

BEGIN: ContextVar[Callable[[str, Facts], AbstractContextManager[Facts]] | None] = ContextVar("begin", default=None)
"""What begins a span under the one that is open; None where nobody traces the request."""


def span(name: str, **facts: Fact) -> AbstractContextManager[Facts]:
    """A stage: what is done within. What is known of it by its end may be added to its facts.

    A fact is a number, a name or a yes, never a text that somebody wrote: traces are read by other people than logs.

    >>> with span("retrieve", depth=100) as facts:
    ...     facts["hits"] = 7
    """
    begin = BEGIN.get()
    return begin(name, facts) if begin else nullcontext(facts)


def traced(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A function every call of which is a stage."""

    def made(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            if BEGIN.get() is None:
                return function(*args, **kwargs)
            with span(name):
                return function(*args, **kwargs)

        return call

    return made
