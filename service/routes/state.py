"""What a handler may ask the running app for, and who is asking.

The functions are `async` though they wait for nothing: FastAPI runs others in a thread, which costs more than they do.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from service.administration import Administration
from service.answering import Answering
from service.caller import Caller, Forbidden, Scope
from service.embedding import Embedder
from service.explaining import Explaining
from service.metrics import Metrics
from service.serving import Serving
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class May:
    """A dependency: the caller, if it may do what the route needs.

    Attributes:
        scope: What the route needs.
        confined: Whether the route keeps to the indexes and the documents of the caller.
    """

    scope: Scope
    confined: bool

    async def __call__(self, request: Request) -> Caller:
        """The caller that `service.guard` found; `service.openapi` says in which headers it looks."""
        caller: Caller = request.state.caller
        caller.check(self.scope)
        if caller.confined and not self.confined:
            raise Forbidden(f"key {caller.name!r} is confined to indexes or a tenant, and this route answers for all")
        return caller


def may(scope: Scope) -> May:
    """The caller of a route that looks at everything the service holds: confined keys are refused."""
    return May(scope, confined=False)


def may_confined(scope: Scope) -> May:
    """The caller of a route that asks `caller.index` and keeps to its tenant: confined keys are welcome."""
    return May(scope, confined=True)


def _of_app(name: str) -> Callable[[Request], Awaitable[Any]]:
    """A dependency: what the app keeps under this name."""

    async def kept(request: Request) -> Any:
        return getattr(request.app.state, name)

    return kept


SearchCaller = Annotated[Caller, Depends(may_confined("search"))]
WriteCaller = Annotated[Caller, Depends(may_confined("write"))]
AdminCaller = Annotated[Caller, Depends(may("admin"))]
AppAdministration = Annotated[Administration, Depends(_of_app("administration"))]
AppAnswering = Annotated[Answering, Depends(_of_app("answering"))]
AppEmbedder = Annotated[Embedder, Depends(_of_app("embedder"))]
AppExplaining = Annotated[Explaining, Depends(_of_app("explaining"))]
AppMetrics = Annotated[Metrics, Depends(_of_app("metrics"))]
AppServing = Annotated[Serving, Depends(_of_app("serving"))]
AppSettings = Annotated[Settings, Depends(_of_app("settings"))]
