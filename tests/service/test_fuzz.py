"""A running service under generated requests: no 5xx, no undeclared status, no body outside its schema.

That every request which fits the schema is accepted is not held: no schema says which texts hold a word that a model
knows, or which fields an index declares. More requests, and others each time:
`SCHEMATHESIS_EXAMPLES=500 pytest tests/service/test_fuzz.py`.
"""

import asyncio
import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from schemathesis.specs.openapi.schemas import OpenApiSchema

from indexer.build import BuildOptions, build_index
from indexer.catalog import go_live, keep_artifact, open_engine
from model.artifact import Artifact
from model.encoder import Encoder
from service.app import create_app
from service.keys import create_key
from service.openapi import drawn, operations
from service.searcher import open_searchers
from service.server import listen
from service.settings import Settings
from tests.service.conftest import DOCUMENTS

OPERATIONS = [operation["operationId"] for _, operation in operations(json.loads(drawn()))]
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "10"))


REJECTED = ["400", "401", "403", "404", "405", "409", "410", "413", "414", "415", "422", "429", "431", "504"]
CONFIG = SchemathesisConfig.from_dict(
    {
        "checks": {
            "negative_data_rejection": {"expected-statuses": REJECTED},
            "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "504"]},  # `timeout_ms` may be 1
        }
    }
)

EXCLUDED = defaultdict(list, {"batch": [negative_data_rejection]})
"""A batch is answered though a search of it is refused."""


class Api(NamedTuple):
    schema: OpenApiSchema
    headers: dict[str, str]


@pytest.fixture(scope="module")
def api(tiny_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A writing service on a socket, the description that it gives of itself, and a key to all of it."""
    told = Settings(data=tmp_path_factory.mktemp("data"), threads=1, timeout_ms=60_000, writable=True, port=0)
    encoder = Encoder(keep_artifact(told, tiny_artifact), threads=1)
    engine = open_engine(told)
    for _ in range(2):
        go_live(engine, build_index(engine, encoder, DOCUMENTS, BuildOptions(fields={"metadata.lang": "keyword"})))
    key = create_key(told.key_file, "fuzz", ["admin"])  # before the service starts, so that it never was without
    ready = threading.Event()
    app = create_app(lambda: open_searchers(told), told, on_ready=lambda _: ready.set())
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    with listen(told.host, 0) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        assert ready.wait(60)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/openapi.json"
        headers = {"X-API-Key": key, "Authorization": f"Bearer {key}"}
        yield Api(schemathesis.openapi.from_url(address, headers=headers, config=CONFIG), headers)
        server.should_exit = True
        thread.join(60)
    engine.close()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_no_request_is_answered_otherwise_than_described(api: Api, operation_id: str, mode: GenerationMode) -> None:
    operation = api.schema.find_operation_by_id(operation_id)
    if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query or operation.path_parameters):
        return

    @given(operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize="SCHEMATHESIS_EXAMPLES" not in os.environ,
        database=None,
        suppress_health_check=[*HealthCheck],
    )
    def hold(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(headers=api.headers, excluded_checks=[positive_data_acceptance, *EXCLUDED[operation_id]])

    hold()
