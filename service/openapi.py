"""The API's description: what FastAPI knows, said as the service really answers.

Errors are `application/problem+json` on the wire, so they are declared so. FastAPI's own answer to a wrong request is
never given, so it is taken out. `python -m service.openapi docs/openapi.json` draws the committed description again.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.problems import REQUEST_ID
from service.schemas import PROBLEM_TYPE

PROBLEM = {"$ref": "#/components/schemas/Problem"}
FASTAPIS_OWN = ("HTTPValidationError", "ValidationError")
VERBS = {"get", "put", "post", "delete", "patch", "head", "options"}

TAGS = [
    {"name": "search", "description": "Find documents, and see why."},
    {"name": "encode", "description": "The vectors of texts."},
    {"name": "documents", "description": "Single documents, read and written at once."},
    {"name": "indexes", "description": "What can be searched."},
    {"name": "builds", "description": "Which build an index answers from."},
    {"name": "openai", "description": "What clients of OpenAI's API ask for."},
    {"name": "tei", "description": "What clients of text-embeddings-inference ask for."},
    {"name": "health", "description": "For the machines that watch."},
]

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
    for operation in operations(found):
        if operation["tags"] != ["health"]:
            operation["responses"].setdefault(
                "500", {"description": "A defect of ours", "content": {PROBLEM_TYPE: {"schema": PROBLEM}}}
            )
        for response in operation["responses"].values():
            _say_problem(response)
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


def operations(description: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each operation of a description."""
    for path in description["paths"].values():
        yield from (operation for verb, operation in path.items() if verb in VERBS)


def drawn() -> str:
    """The description of the service as it is committed; no index is opened for it."""
    from service.app import create_app
    from service.searcher import open_searchers
    from service.settings import Settings

    settings = Settings.model_construct()
    app = create_app(lambda: open_searchers(settings), settings)
    return json.dumps(describe(app), indent=2, ensure_ascii=False) + "\n"


def _say_problem(response: dict[str, Any]) -> None:
    content = response.get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    if schema == PROBLEM or schema.get("$ref", "").endswith(FASTAPIS_OWN):
        response["content"] = {PROBLEM_TYPE: {"schema": PROBLEM}}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(drawn(), encoding="utf-8")
