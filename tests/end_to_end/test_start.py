"""What a command loads before it does its work, in a process of its own.

Time to start is what is meant, and imported modules are what repeats: most of a cold start is imports
(`python bench/start.py`). A library named here is one that the command has no use for.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import typer.main

from service.cli import app
from service.later import PLACES
from tests.end_to_end.conftest import Dupmae, Service

TRAINING = {"torch", "transformers", "onnx", "safetensors", "tensorboard", "matplotlib", "PIL", "scipy"}
JUDGING = {"bm25s", "ir_measures", "Stemmer", "pandas"}
SOURCES = {"pyarrow", "pypdf", "selectolax", "zstandard", "yaml", "ray"}
OTHER_ENGINE = {"qdrant_client", "grpc", "httpx", "urllib3"}
SERVER = {"fastapi", "starlette", "uvicorn", "prometheus_client", "anyio"}
ENGINE = {"qdrant_edge", "onnxruntime", "tokenizers", "numpy", "pydantic"}
TABLES = {"rich", "markdown_it"}
NEVER = TRAINING | JUDGING | SOURCES | OTHER_ENGINE

COMMANDS = {"indexer.commands", "model.commands", "model.cli", "indexer.cli", "service.key_cli"}
"""Modules of ours that declare commands of other groups."""


def imported(importtime: str) -> set[str]:
    """Names of the modules in what `PYTHONPROFILEIMPORTTIME` writes.

    >>> imported('import time:  12 |  34 |   json.decoder')
    {'json.decoder'}
    """
    return set(re.findall(r"^import time: +[^|]+\|[^|]+\| *(\S.*)$", importtime, re.MULTILINE))


def among(modules: set[str], names: set[str]) -> set[str]:
    """Those of `names` that, or a part of which, were imported."""
    return {name for name in names if any(module == name or module.startswith(f"{name}.") for module in modules)}


@pytest.fixture(scope="module")
def loaded(dupmae: Dupmae) -> Callable[..., set[str]]:
    def run(*arguments: str) -> set[str]:
        done = dupmae(*arguments, PYTHONPROFILEIMPORTTIME="1")
        assert done.returncode == 0, done.stderr
        return imported(done.stderr)

    return run


@pytest.fixture(scope="module")
def served(index: str, start: Callable[..., AbstractContextManager[Service]]) -> Iterator[set[str]]:
    """What a service has loaded when it says that it is ready."""
    with start(PYTHONPROFILEIMPORTTIME="1") as service:
        yield imported(service.log.read_text().partition("Serving index")[0])


def test_the_help_loads_nothing_but_the_command_line(loaded: Callable[..., set[str]]) -> None:
    modules = loaded("--help")
    assert not among(modules, NEVER | SERVER | ENGINE | COMMANDS)
    assert {module for module in modules if module.partition(".")[0] in {"model", "indexer"}} == {
        "indexer",
        "indexer.modes",
    }


@pytest.mark.parametrize("name", PLACES)
def test_the_line_of_a_group_is_the_one_that_it_has_itself(name: str) -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    listed = root.commands[name]
    _, group, _ = root.resolve_command(typer.Context(root), [name])
    assert group is not None
    assert group is not listed
    assert group.help
    assert listed.help == group.help.partition("\n\n")[0]


def test_the_help_of_a_group_loads_no_engine_and_no_server(loaded: Callable[..., set[str]]) -> None:
    assert not among(loaded("index", "--help"), NEVER | SERVER | {"onnxruntime", "qdrant_edge", "model.cli"})


def test_a_search_loads_no_server_and_no_engine_but_its_own(index: str, loaded: Callable[..., set[str]]) -> None:
    assert not among(loaded("search", "a ship", "--json"), NEVER | SERVER | COMMANDS)


def test_a_service_is_ready_without_what_only_other_commands_use(served: set[str]) -> None:
    assert not among(served, NEVER | COMMANDS | TABLES)


def test_a_service_is_ready_with_what_it_is_made_of(served: set[str]) -> None:
    assert among(served, SERVER | ENGINE) == SERVER | ENGINE
