"""The API's description: what FastAPI knows, said as the service really answers.

Errors are `application/problem+json` on the wire, so they are declared so. FastAPI's own answer to a wrong request is
never given, so it is taken out. `python -m service.openapi docs/openapi.json` draws the committed description again.
"""

import json
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.guard import OPEN
from service.problems import REQUEST_ID
from service.schemas import PROBLEM_TYPE

PROBLEM = {"$ref": "#/components/schemas/Problem"}
DIALECTS = {"openai": "OpenAIErrorOut", "tei": "TeiErrorOut"}
"""Where errors are said otherwise, for clients that read no problems."""

FASTAPIS_OWN = ("HTTPValidationError", "ValidationError")
VERBS = {"get", "put", "post", "delete", "patch", "head", "options"}

TAGS = [
    {"name": "search", "description": "Find documents, and see why."},
    {"name": "encode", "description": "The vectors of texts."},
    {"name": "documents", "description": "Single documents, read and written at once."},
    {"name": "indexes", "description": "What can be searched."},
    {"name": "builds", "description": "Which build an index answers from."},
    {"name": "openai", "description": "Embeddings for OpenAI's clients."},
    {"name": "tei", "description": "Embeddings for the clients of text-embeddings-inference."},
    {"name": "health", "description": "For the machines that watch."},
]

KEYS = {
    "HTTPBearer": {
        "type": "http",
        "description": "A key, as `dupmae key create` shows it once.",
        "scheme": "bearer",
    },
    "APIKeyHeader": {
        "type": "apiKey",
        "description": "The same key, for clients that send it so.",
        "in": "header",
        "name": "X-API-Key",
    },
}
"""Where `service.guard` looks for a key."""

REQUEST_ID_HEADER = {
    "description": "The id of the request, as the caller gave it or as the service made it; the log has it too.",
    "schema": {"type": "string"},
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The description of an app, OpenAPI 3.1."""
    found = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        tags=TAGS,
    )
    found["components"]["securitySchemes"] = KEYS
    for path, operation in operations(found):
        if path not in OPEN:
            operation["security"] = [{name: []} for name in KEYS]
            operation["responses"] = _anywhere(operation["tags"][0]) | operation["responses"]
        for response in operation["responses"].values():
            _say_fault(response, operation["tags"][0])
            response.setdefault("headers", {})[REQUEST_ID] = REQUEST_ID_HEADER
    for name in FASTAPIS_OWN:
        found["components"]["schemas"].pop(name, None)
    return found


def install(app: FastAPI) -> None:
    """Let `/openapi.json` answer with `describe`, made when it is first asked for."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents


def operations(description: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each operation of a description, with its path."""
    for path, verbs in description["paths"].items():
        yield from ((path, operation) for verb, operation in verbs.items() if verb in VERBS)


def drawn() -> str:
    """The description of the service as it is committed; no index is opened for it."""
    from service.app import create_app
    from service.searcher import open_searchers
    from service.settings import Settings

    settings = Settings.model_construct()
    app = create_app(lambda: open_searchers(settings), settings)
    return json.dumps(describe(app), indent=2, ensure_ascii=False) + "\n"


def _anywhere(tag: str) -> dict[str, Any]:
    """What a request may meet before its route, or by a defect of ours."""
    statuses = (HTTPStatus(status) for status in (401, 403, 414, 429, 431, 500))
    return {str(status.value): {"description": status.phrase, "content": _fault(tag)} for status in statuses}


def _fault(tag: str) -> dict[str, Any]:
    """How an error is said on the routes of a tag."""
    if name := DIALECTS.get(tag):
        return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {PROBLEM_TYPE: {"schema": PROBLEM}}


def _say_fault(response: dict[str, Any], tag: str) -> None:
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    if schema == PROBLEM or schema.get("$ref", "").endswith(FASTAPIS_OWN):
        response["content"] = _fault(tag)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(drawn(), encoding="utf-8")
