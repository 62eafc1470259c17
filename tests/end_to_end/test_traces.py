"""A service that runs sends its traces where the standard variables say, over the wire that collectors speak."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from queue import SimpleQueue

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.end_to_end.conftest import Service
from tests.receiver import receiver

Start = Callable[..., AbstractContextManager[Service]]
TRACED = {"DUPMAE_TRACING": "true", "DUPMAE_DRAIN_LEAD_S": "0"}
NEVER_BY_ITSELF = {"OTEL_BSP_SCHEDULE_DELAY": "600000"}


@contextmanager
def collector() -> Iterator[tuple[str, "SimpleQueue[ExportTraceServiceRequest]"]]:
    """A collector's address, and what it is sent."""
    received: SimpleQueue[ExportTraceServiceRequest] = SimpleQueue()

    def take(path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        received.put(ExportTraceServiceRequest.FromString(body))

    with receiver(take) as address:
        yield address, received


def spans(request: ExportTraceServiceRequest) -> dict[str, Span]:
    return {
        span.name: span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans
    }


def test_a_stop_sends_what_has_not_been_sent_yet_and_the_log_has_its_trace(start: Start, index: str) -> None:
    with collector() as (address, received):
        with start(**TRACED, **NEVER_BY_ITSELF, OTEL_EXPORTER_OTLP_ENDPOINT=address) as service:
            assert httpx.post(f"{service.address}/v1/search", json={"query": "king"}).status_code == 200
            service.process.terminate()
            log = service.ended(timeout=60)
        sent = spans(received.get(timeout=10))
    [line] = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert set(sent) == {"POST /v1/search", "search", "encode", "retrieve", "render"}
    assert {span.trace_id.hex() for span in sent.values()} == {line["trace_id"]}


def test_a_collector_that_is_away_costs_no_answer_and_no_orderly_stop(start: Start, index: str) -> None:
    with start(**TRACED, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_BSP_SCHEDULE_DELAY="10") as service:
        for _ in range(3):
            assert httpx.post(f"{service.address}/v1/search", json={"query": "king"}).status_code == 200
        service.process.terminate()
        log = service.ended(timeout=60)
    assert service.process.returncode == 0
    assert "the last spans were not taken within 2 s, and are lost" in log
