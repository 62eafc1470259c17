"""Traces of requests, by OpenTelemetry: the extra `tracing`, imported only where `DUPMAE_TRACING` is set.

Where spans go, how many are kept and what they are called is for the standard `OTEL_*` variables to say. Spans are
placed by hand at the stages that `meta.took_ms` and the metrics know, and hold counts, names and times. No URL, no
message of an error and no text of anybody's is in them, which is why nothing instruments the framework: its spans hold
the URL with the query. Each app has a provider of its own; the global one is not touched.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points, version
from threading import Thread
from typing import Any

from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.guard import FILES, OPEN
from service.settings import SettingsError
from service.spans import BEGIN, Facts

LOGGER = logging.getLogger("dupmae.tracing")
NAME = "dupmae-search"
LOGGED = ("request_id", "mode", "index", "results")
"""What of its line in the log a request's span repeats."""

METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
"""Those that a span is named after; anybody can invent others."""

LAST_S = 2.0
"""How long a stop waits until the last spans are sent; less than what `service.stopping` allows for the end."""

PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
"""The exporter of each, as packages announce them."""


class Tracing:
    """The spans of one app.

    Attributes:
        provider: Makes and exports them.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self._tracer = provider.get_tracer(NAME, version(NAME))

    @contextmanager
    def request(self, scope: Scope) -> Iterator[Span]:
        """The span of a whole request, under that of the caller whose `traceparent` it carries."""
        method = scope["method"] if scope["method"] in METHODS else "HTTP"
        with self._span(method, context=extract(Headers(scope=scope)), kind=SpanKind.SERVER) as span:
            try:
                yield span
            finally:
                _finish(span, scope, method)

    @contextmanager
    def stage(self, name: str, facts: Facts) -> Iterator[Facts]:
        """As `service.spans.span`."""
        with self._span(name) as span:
            try:
                yield facts
            finally:
                span.set_attributes({f"dupmae.{key}": value for key, value in facts.items()})

    def layer(self, app: ASGIApp) -> "Traced":
        """The layer around an app that traces its requests."""
        return Traced(app, self)

    def close(self) -> None:
        """Send what is left, but let no collector that is away hold up a stop: it is waited for `LAST_S`."""
        ending = Thread(target=self.provider.shutdown, daemon=True)
        ending.start()
        ending.join(LAST_S)
        if ending.is_alive():
            LOGGER.warning("the last spans were not taken within %g s, and are lost", LAST_S)

    @contextmanager
    def _span(self, name: str, **options: Any) -> Iterator[Span]:
        """A span that tells the kind of an error only: its message may repeat what somebody asked."""
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False, **options
        ) as span:
            try:
                yield span
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(StatusCode.ERROR)
                raise


class Traced:
    """Traces the requests that somebody waits for, and puts the trace's id into their lines of the log.

    It stands inside `RequestLog`. What machines watch and the files of the page are left out: they say nothing, often.
    """

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or scope["path"] in OPEN or scope["path"].startswith(FILES):
            await self._app(scope, receive, send)
            return
        with self._tracing.request(scope) as span:
            if (context := span.get_span_context()).is_valid:
                scope["state"]["log"]["trace_id"] = format_trace_id(context.trace_id)
            token = BEGIN.set(self._tracing.stage if span.is_recording() else None)
            try:
                await self._app(scope, receive, send)
            finally:
                BEGIN.reset(token)


def open_tracing() -> Tracing:
    """Tracing as the `OTEL_*` variables want it.

    Raises:
        SettingsError: They name an exporter that is not installed, or one of them cannot be used.
    """
    own = Resource.create({"service.name": NAME, "service.version": version(NAME)})
    try:
        provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        for exporter in _exporters():
            provider.add_span_processor(BatchSpanProcessor(exporter))
    except ValueError as error:
        raise SettingsError(f"an OTEL_* variable cannot be used: {error}") from error
    return Tracing(provider)


def _exporters() -> Iterator[SpanExporter]:
    wanted = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    for name in {each.strip() for each in wanted.split(",")} - {"none"}:
        announced = _over_otlp() if name == "otlp" else name
        found = list(entry_points(group="opentelemetry_traces_exporter", name=announced))
        if not found:
            raise SettingsError(
                f"no exporter of traces {announced!r} is installed; the extra `tracing` brings otlp over http/protobuf "
                "and console: change OTEL_TRACES_EXPORTER or OTEL_EXPORTER_OTLP_PROTOCOL, or install its package"
            )
        exporter: SpanExporter = found[0].load()()
        yield exporter


def _over_otlp() -> str:
    names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = next(filter(None, map(os.environ.get, names)), "http/protobuf")
    return PROTOCOLS.get(protocol, protocol)


def _finish(span: Span, scope: Scope, method: str) -> None:
    """What is known of a request when it has been answered."""
    line = scope["state"]["log"]
    span.set_attributes({"http.request.method": method, "http.response.status_code": line["status"]})
    span.set_attributes({f"dupmae.{key}": line[key] for key in LOGGED if key in line})
    if path := getattr(scope.get("route"), "path", None):
        span.update_name(f"{method} {path}")
        span.set_attribute("http.route", path)
    if line["status"] >= 500:
        span.set_status(StatusCode.ERROR)
