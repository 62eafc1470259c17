"""What a handler may ask the running app for."""

from typing import Annotated

from fastapi import Depends, Request

from service.answering import Answering
from service.metrics import Metrics
from service.serving import Serving
from service.settings import Settings


def _answering(request: Request) -> Answering:
    answering: Answering = request.app.state.answering
    return answering


def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving


def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


AppAnswering = Annotated[Answering, Depends(_answering)]
AppServing = Annotated[Serving, Depends(_serving)]
AppMetrics = Annotated[Metrics, Depends(_metrics)]
AppSettings = Annotated[Settings, Depends(_settings)]
