"""A service that runs sends its traces where the standard variables say, over the wire that collectors speak."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import SimpleQueue

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.end_to_end.conftest import Service

Start = Callable[..., AbstractContextManager[Service]]
TRACED = {"DUPMAE_TRACING": "true", "DUPMAE_DRAIN_LEAD_S": "0"}
NEVER_BY_ITSELF = {"OTEL_BSP_SCHEDULE_DELAY": "600000"}


@contextmanager
def collector() -> Iterator[tuple[str, "SimpleQueue[ExportTraceServiceRequest]"]]:
    """A collector's address, and what it is sent."""
    received: SimpleQueue[ExportTraceServiceRequest] = SimpleQueue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            received.put(ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            server.shutdown()


def spans(request: ExportTraceServiceRequest) -> dict[str, Span]:
    return {
        span.name: span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans
    }


def test_a_stop_sends_what_has_not_been_sent_yet_and_the_log_has_its_trace(start: Start, index: str) -> None:
    with collector() as (address, received):
        with start(**TRACED, **NEVER_BY_ITSELF, OTEL_EXPORTER_OTLP_ENDPOINT=address) as service:
            assert httpx.post(f"{service.address}/v1/search", json={"query": "king"}).status_code == 200
            service.process.terminate()
            _, log = service.process.communicate(timeout=60)
        sent = spans(received.get(timeout=10))
    [line] = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert set(sent) == {"POST /v1/search", "search", "encode", "retrieve", "render"}
    assert {span.trace_id.hex() for span in sent.values()} == {line["trace_id"]}


def test_a_collector_that_is_away_costs_no_answer_and_no_orderly_stop(start: Start, index: str) -> None:
    with start(**TRACED, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_BSP_SCHEDULE_DELAY="10") as service:
        for _ in range(3):
            assert httpx.post(f"{service.address}/v1/search", json={"query": "king"}).status_code == 200
        service.process.terminate()
        _, log = service.process.communicate(timeout=60)
    assert service.process.returncode == 0
    assert "the last spans were not taken within 2 s, and are lost" in log
