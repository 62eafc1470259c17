"""Traces: the spans of a request, seen by OpenTelemetry's own exporters; and nothing of them where nobody traces."""

import asyncio
import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from indexer.build import BuildOptions, build_index
from indexer.catalog import keep_artifact, open_engine
from indexer.release import ReleaseOptions, release
from model.artifact import Artifact
from model.encoder import Encoder
from service.access import LOGGER
from service.app import create_app
from service.keys import create_key
from service.searcher import open_searchers
from service.settings import Settings, SettingsError
from service.tracing import open_tracing
from tests.indexer.collection import random_documents

pytestmark = pytest.mark.anyio

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_OF_CALLER = "00f067aa0ba902b7"
PARENT = {"traceparent": f"00-{CALLER}-{SPAN_OF_CALLER}-01"}
Lines = Callable[[], list[dict[str, Any]]]

SECRET = "zebra kettle harbour"
WORDLESS = "\u200b"
"""A query without a word; messages show it as its number."""


class Watched:
    """An app that is traced, its client, and what it has exported."""

    def __init__(self, client: httpx.AsyncClient, exporter: InMemorySpanExporter) -> None:
        self.client = client
        self._exporter = exporter

    def finished(self) -> tuple[ReadableSpan, ...]:
        spans: tuple[ReadableSpan, ...] = self._exporter.get_finished_spans()
        return spans

    def spans(self) -> dict[str, ReadableSpan]:
        """By name; the last of each."""
        return {span.name: span for span in self.finished()}

    def names(self) -> list[str]:
        return sorted(span.name for span in self.finished())

    def text(self) -> str:
        return "".join(span.to_json() for span in self.finished())


@asynccontextmanager
async def traced(settings: Settings, **changes: object) -> AsyncIterator[Watched]:
    changed = settings.model_copy(update={"tracing": True, **changes})
    app = create_app(lambda: open_searchers(changed), changed)
    exporter = InMemorySpanExporter()
    app.state.tracing.provider.add_span_processor(SimpleSpanProcessor(exporter))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://dupmae.test") as client,
    ):
        yield Watched(client, exporter)


@pytest.fixture(autouse=True)
def nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[Lines]:
    """The lines of the request log so far."""
    with caplog.at_level(logging.INFO, logger=LOGGER.name):
        yield lambda: [json.loads(record.message) for record in caplog.records if record.name == LOGGER.name]


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def id_of(span: ReadableSpan) -> int:
    return int(span.context.span_id)


def trace_of(span: ReadableSpan) -> int:
    return int(span.context.trace_id)


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_search_has_a_span_for_each_of_its_stages_within_that_of_the_request(settings: Settings) -> None:
    async with traced(settings) as watched:
        await watched.client.post("/v1/search", json={"query": "king", "facets": ["metadata.lang"]})
    spans = watched.spans()
    request, search = spans["POST /v1/search"], spans["search"]
    assert (request.kind, request.parent, parent_of(search)) == (SpanKind.SERVER, None, id_of(request))
    stages = [spans[name] for name in ("encode", "retrieve", "facets", "render")]
    assert [parent_of(stage) for stage in stages] == [id_of(search)] * 4
    times = [at for stage in stages for at in (stage.start_time or 0, stage.end_time or 0)]
    assert times == sorted(times), "one stage after the other"


async def test_spans_hold_what_an_operator_asks_about(settings: Settings) -> None:
    async with traced(settings) as watched:
        answer = await watched.client.post("/v1/search", json={"query": "king", "limit": 2})
    spans = watched.spans()
    request = facts(spans["POST /v1/search"])
    assert request == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v1/search",
        "dupmae.request_id": answer.headers["x-request-id"],
        "dupmae.mode": "fused",
        "dupmae.index": "default",
        "dupmae.results": 2,
    }
    encode = facts(spans["encode"])
    assert (encode["dupmae.tokens"], encode["dupmae.batch_size"]) == (answer.json()["meta"]["query"]["tokens"], 1)
    assert {"dupmae.queued_ms", "dupmae.encoded_ms"} < encode.keys()
    assert facts(spans["retrieve"])["dupmae.hits"] == 2
    assert spans["encode"].resource.attributes["service.name"] == "dupmae-search"


async def test_a_remembered_answer_says_so(settings: Settings) -> None:
    async with traced(settings) as watched:
        for _ in range(2):
            await watched.client.post("/v1/search", json={"query": "king"})
    assert watched.names() == ["POST /v1/search"] * 2 + ["encode", "render", "retrieve"] + ["search"] * 2
    assert facts(watched.spans()["search"])["dupmae.remembered"] is True


async def test_the_trace_of_the_caller_is_gone_on_with_and_stands_in_the_log(settings: Settings, logged: Lines) -> None:
    async with traced(settings) as watched:
        await watched.client.post("/v1/search", json={"query": "king"}, headers=PARENT)
        await watched.client.post("/v1/search", json={"query": "sea"}, headers={"traceparent": "00-no-trace-01"})
    roots = [span for span in watched.finished() if span.kind is SpanKind.SERVER]
    assert [parent_of(span) for span in roots] == [int(SPAN_OF_CALLER, 16), None]
    first, second = (line["trace_id"] for line in logged())
    assert first == CALLER
    assert second == f"{trace_of(roots[1]):032x}" != CALLER


async def test_a_caller_who_does_not_sample_is_not_traced_but_found_in_the_log(
    settings: Settings, logged: Lines
) -> None:
    async with traced(settings) as watched:
        await watched.client.post(
            "/v1/search", json={"query": "king"}, headers={"traceparent": f"00-{CALLER}-{SPAN_OF_CALLER}-00"}
        )
    assert watched.names() == []
    assert [line["trace_id"] for line in logged()] == [CALLER]


async def test_searches_of_a_batch_that_share_an_encoder_keep_their_own_spans(settings: Settings) -> None:
    queries = ["king", "sea", "sound"]
    async with traced(settings) as watched:
        await watched.client.post("/v1/search:batch", json={"searches": [{"query": query} for query in queries]})
    spans = watched.finished()
    searches = {id_of(span) for span in spans if span.name == "search"}
    assert len(searches) == 3
    for stage in ("encode", "retrieve", "render"):
        assert {parent_of(span) for span in spans if span.name == stage} == searches


async def test_writes_are_traced_down_to_the_thread_that_writes(settings: Settings, tmp_path: Path) -> None:
    own = shutil.copytree(settings.data, tmp_path / "data")
    async with traced(settings, data=own, writable=True) as watched:
        await watched.client.put("/v1/documents/new", json={"text": "the king"})
        await watched.client.delete("/v1/documents/new")
    assert watched.names() == ["DELETE /v1/documents/{id:path}", "PUT /v1/documents/{id:path}", "write", "write"]
    requests = {id_of(span) for span in watched.finished() if span.kind is SpanKind.SERVER}
    assert {parent_of(span) for span in watched.finished() if span.name == "write"} == requests


async def test_explanations_likeness_and_vectors_have_their_stages(settings: Settings) -> None:
    async with traced(settings) as watched:
        await watched.client.post("/v1/explain", json={"query": "king", "id": "king"})
        await watched.client.post("/v1/documents/king:similar", json={})
        await watched.client.post("/v1/embeddings", json={"model": "tiny", "input": ["king", "sea"]})
    assert {
        "POST /v1/explain",
        "POST /v1/documents/{id:path}:similar",
        "POST /v1/embeddings",
        "explain",
        "look_up",
    } < set(watched.names())
    encode = facts(watched.spans()["encode"])
    assert (encode["dupmae.texts"], encode["dupmae.role"]) == (2, "document")


async def test_what_fails_is_marked_by_the_kind_of_error_and_its_message_is_left_out(settings: Settings) -> None:
    async with traced(settings) as watched:
        answer = await watched.client.post("/v1/search", json={"query": WORDLESS})
    assert answer.status_code == 422
    assert "u200b" in answer.json()["detail"]
    spans = watched.spans()
    encode = spans["encode"]
    assert (encode.status.status_code, encode.status.description) == (StatusCode.ERROR, None)
    assert facts(encode)["error.type"] == "QueryRefused"
    assert not encode.events
    assert "u200b" not in watched.text()
    assert spans["POST /v1/search"].status.status_code is StatusCode.UNSET, "the caller's fault"


async def test_an_answer_that_is_our_fault_is_an_error_of_its_request(settings: Settings, tmp_path: Path) -> None:
    async with traced(settings, data=tmp_path) as watched:
        await watched.client.post("/v1/search", json={"query": "king"})
    [request] = watched.finished()
    assert (request.name, request.status.status_code) == ("POST /v1/search", StatusCode.ERROR)
    assert facts(request)["http.response.status_code"] == 503


async def test_no_query_document_key_or_path_of_anybody_is_in_a_span(settings: Settings, tmp_path: Path) -> None:
    secret = create_key(tmp_path / "keys.json", "shop", ["search"])
    headers = {"x-api-key": secret}
    async with traced(settings, log_queries=True, keys=tmp_path / "keys.json") as watched:
        for body in ({"query": SECRET}, {"query": SECRET, "limit": -1}, {"query": "king", "filter": {"x": SECRET}}):
            await watched.client.post(f"/v1/search?q={SECRET}", json=body, headers=headers)
        await watched.client.get(f"/v1/documents/{SECRET}", headers=headers)
        await watched.client.get(f"/{SECRET}", headers=headers)
        await watched.client.request("KETTLE", "/v1/search", headers=headers)
    requests = [facts(span) for span in watched.finished() if span.kind is SpanKind.SERVER]
    assert [request["http.response.status_code"] for request in requests] == [200, 422, 422, 404, 404, 405]
    assert {"GET", "HTTP /v1/search", "GET /v1/documents/{id:path}"} < set(watched.names())
    for word in [*SECRET.split(), secret, "KETTLE", "shop"]:
        assert word not in watched.text()


async def test_a_request_that_opens_an_index_is_not_traced_on_while_that_is_probed(
    reading_artifact: Artifact, tmp_path: Path
) -> None:
    settings = Settings(data=tmp_path, index="another", threads=1, probe_s=0.1)
    keep_artifact(settings, reading_artifact)
    with closing(open_engine(settings)) as engine:
        build = build_index(engine, Encoder(reading_artifact, threads=1), random_documents(20), BuildOptions())
        release(engine, settings, build, ReleaseOptions(judged=None))
    async with traced(settings) as watched:
        await watched.client.post("/v1/search", json={"query": "king", "index": build.index})
        async with asyncio.timeout(60):
            while not re.search(r'rounds_total{.*"complete".*} [1-9]', (await watched.client.get("/metrics")).text):
                await asyncio.sleep(0.01)
    assert watched.names() == ["POST /v1/search", "encode", "render", "retrieve", "search"]


async def test_probes_scrapes_and_the_page_are_not_traced(settings: Settings, logged: Lines) -> None:
    async with traced(settings) as watched:
        for path in ("/livez", "/readyz", "/health", "/metrics", "/", "/web/page.js"):
            await watched.client.get(path)
    assert watched.names() == []
    assert len(logged()) == 6
    assert not any("trace_id" in line for line in logged())


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkins", "no exporter of traces 'zipkins' is installed"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "few", "an OTEL_\\* variable cannot be used: .*few"),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "smoke",
            "no exporter of traces 'smoke' is installed.*OTEL_EXPORTER_OTLP_PROTOCOL",
        ),
    ],
)
def test_a_variable_that_cannot_be_used_stops_the_start(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=told):
        open_tracing()


def test_the_variables_name_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "search-eu")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    resource = open_tracing().provider.resource.attributes
    assert (resource["service.name"], resource["deployment.environment"]) == ("search-eu", "test")


def in_a_fresh_interpreter(code: str, data: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code, str(data)]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)


SEARCH = """
import sys
{before}
from pathlib import Path
from fastapi.testclient import TestClient
from service.app import create_app
from service.searcher import open_searchers
from service.settings import Settings
settings = Settings(data=Path(sys.argv[1]), threads=1, tracing={tracing})
with TestClient(create_app(lambda: open_searchers(settings), settings)) as client:
    assert client.post("/v1/search", json={{"query": "king"}}).status_code == 200
ours = ("opentelemetry.sdk", "opentelemetry.exporter", "service.tracing")
print(*(name for name in sys.modules if name.startswith(ours)))
"""


def test_a_service_that_is_not_traced_imports_nothing_of_it(data: Path) -> None:
    done = in_a_fresh_interpreter(SEARCH.format(before="", tracing=False), data)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_without_the_extra_tracing_is_refused_by_the_command_that_installs_it(data: Path) -> None:
    absent = "sys.modules['opentelemetry.sdk'] = None"
    done = in_a_fresh_interpreter(SEARCH.format(before=absent, tracing=True), data)
    assert done.returncode
    assert "SettingsError: DUPMAE_TRACING needs OpenTelemetry; `pip install 'dupmae-search[tracing]'`" in done.stderr
