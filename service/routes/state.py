"""What a handler may ask the running app for.

The functions are `async` though they wait for nothing: FastAPI runs others in a thread, which costs more than they do.
"""

from typing import Annotated

from fastapi import Depends, Request

from service.metrics import Metrics
from service.serving import Serving
from service.settings import Settings


async def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving


async def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


AppServing = Annotated[Serving, Depends(_serving)]
AppMetrics = Annotated[Metrics, Depends(_metrics)]
AppSettings = Annotated[Settings, Depends(_settings)]
