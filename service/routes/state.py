"""What a handler may ask the running app for, and who is asking.

The functions are `async` though they wait for nothing: FastAPI runs others in a thread, which costs more than they do.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from service.administration import Administration
from service.answering import Answering
from service.caller import Caller, Forbidden, Scope
from service.embedding import Embedder
from service.explaining import Explaining
from service.metrics import Metrics
from service.serving import Serving
from service.settings import Settings

BEARER = HTTPBearer(auto_error=False, description="A key, as `dupmae key create` shows it once.")
HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same key, for clients that send it so.")


@dataclass(frozen=True, slots=True)
class May:
    """A dependency: the caller, if it may do what the route needs.

    Attributes:
        scope: What the route needs.
        confined: Whether the route keeps to the indexes and the documents of the caller.
    """

    scope: Scope
    confined: bool

    async def __call__(
        self,
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)],
        header: Annotated[str | None, Depends(HEADER)],
    ) -> Caller:
        """The caller that `service.guard` found; both headers stand here for the description of the API only."""
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


async def _administration(request: Request) -> Administration:
    administration: Administration = request.app.state.administration
    return administration


async def _answering(request: Request) -> Answering:
    answering: Answering = request.app.state.answering
    return answering


async def _explaining(request: Request) -> Explaining:
    explaining: Explaining = request.app.state.explaining
    return explaining


async def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving


async def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _embedder(request: Request) -> Embedder:
    embedder: Embedder = request.app.state.embedder
    return embedder


SearchCaller = Annotated[Caller, Depends(may_confined("search"))]
WriteCaller = Annotated[Caller, Depends(may_confined("write"))]
AdminCaller = Annotated[Caller, Depends(may("admin"))]
AppEmbedder = Annotated[Embedder, Depends(_embedder)]
AppAdministration = Annotated[Administration, Depends(_administration)]
AppAnswering = Annotated[Answering, Depends(_answering)]
AppExplaining = Annotated[Explaining, Depends(_explaining)]
AppServing = Annotated[Serving, Depends(_serving)]
AppMetrics = Annotated[Metrics, Depends(_metrics)]
AppSettings = Annotated[Settings, Depends(_settings)]
