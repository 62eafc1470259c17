"""The description of the API is the committed one, and what it shows works."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import validator_for

from service.examples import BATCH, ENCODE, EXPLAIN, SEARCH, SIMILAR
from service.openapi import DIALECTS, drawn, operations
from service.problems import KINDS
from tests.service.conftest import Serve

pytestmark = pytest.mark.anyio

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"
DESCRIPTION: dict[str, Any] = json.loads(drawn())
OPERATIONS = {operation["operationId"]: operation for _, operation in operations(DESCRIPTION)}


def component(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema that a reference leads to."""
    found: dict[str, Any] = DESCRIPTION["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def check(schema: dict[str, Any], value: object) -> None:
    """Raise unless a value fits a schema of the description."""
    validator_for(schema | {"components": DESCRIPTION["components"]}).validate(value)


def test_the_committed_description_is_that_of_the_service() -> None:
    assert COMMITTED.read_text() == drawn(), "draw it again: python -m service.openapi docs/openapi.json"


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_every_operation_has_a_tag_a_summary_and_a_description(operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["description"]
    (tag,) = operation["tags"]
    assert tag in {each["name"] for each in DESCRIPTION["tags"]}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_every_error_is_declared_as_a_problem(operation: dict[str, Any]) -> None:
    for status, response in operation["responses"].items():
        if status >= "400":
            ((media_type, content),) = response["content"].items()
            if name := DIALECTS.get(operation["tags"][0]):
                assert (media_type, content["schema"]["$ref"].rpartition("/")[2]) == ("application/json", name)
            else:
                problem = {"$ref": "#/components/schemas/Problem"}
                assert (media_type, content["schema"]) == ("application/problem+json", problem)
        assert "X-Request-ID" in response["headers"]
    if "requestBody" in operation:
        assert {"400", "413", "415", "422"} <= operation["responses"].keys()


def test_every_status_that_an_error_can_have_is_declared_somewhere() -> None:
    declared = {status for operation in OPERATIONS.values() for status in operation["responses"]}
    assert {str(kind.status) for kind in KINDS.values()} <= declared


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_every_operation_shows_examples_that_fit_its_schema(operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        for example in parameter["schema"]["examples"]:
            check(parameter["schema"], example)
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]["application/json"]
        schema = content["schema"]
        named = content.get("examples", {})
        assert all(example["summary"] for example in named.values())
        values = [example["value"] for example in named.values()] or component(schema)["examples"]
        assert values
        for value in values:
            check(schema, value)


@pytest.mark.parametrize(
    ("path", "operation", "examples"),
    [
        ("/v1/search", "search", SEARCH),
        ("/v1/search:batch", "batch", BATCH),
        ("/v1/documents/zip:similar", "similar", SIMILAR),
        ("/v1/explain", "explain", EXPLAIN),
        ("/v1/encode", "encode", ENCODE),
    ],
)
async def test_every_example_is_answered_as_the_schema_says(
    serve: Serve, path: str, operation: str, examples: dict[str, Any]
) -> None:
    schema = OPERATIONS[operation]["responses"]["200"]["content"]["application/json"]["schema"]
    async with serve() as client:
        for example in examples.values():
            response = await client.post(path, json=example["value"])
            assert response.status_code == 200, response.text
            check(schema, response.json())


async def test_a_running_service_describes_itself(serve: Serve) -> None:
    async with serve() as client:
        assert (await client.get("/openapi.json")).json() == DESCRIPTION
